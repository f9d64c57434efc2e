"""The log in words: its lines in order, and the marks of what decided at that time."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.lab import COMMAND, Lab
from tests.support.wait import wait

DENY = """\
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: denied}
spec:
  selector: {matchLabels: {app: message-service}}
  action: DENY
  rules:
  - to: [{operation: {paths: [/hello/denied*]}}]
"""
ALLOW = DENY.replace("DENY", "ALLOW").replace("denied*", "allowed")
WORDS = ("logs", "-l", "app=message-service", "--words")


def ask(lab: Lab, path: str) -> None:
    lab.run("exec", "curl", "--", "curl", "-s", f"http://message-service{path}")


def told(lab: Lab, path: str, *options: str) -> list[str]:
    """The lines about a path, once there are some."""

    def lines() -> list[str]:
        return [line for line in lab.ok(*WORDS, *options).splitlines() if f"GET {path} " in line]

    found: list[str] = wait(lines, f"a line about {path}", 10)
    return found


@pytest.fixture
def policy(lab: Lab, tmp_path: Path) -> Iterator[Path]:
    file = tmp_path / "policy.yaml"
    yield file
    lab.run("delete", "authorizationpolicy", "denied", "--ignore-not-found")


def test_a_mark_is_of_the_rule_that_denied_whatever_comes_later(lab: Lab, policy: Path) -> None:
    policy.write_text(DENY)
    lab.ok("apply", "-f", str(policy))
    ask(lab, "/hello/denied-1")
    policy.write_text(f"# A comment.\n# Another.\n{DENY}")
    lab.ok("apply", "-f", str(policy))
    ask(lab, "/hello/denied-2")
    policy.write_text(ALLOW)
    lab.ok("apply", "-f", str(policy))
    ask(lab, "/hello/denied-3")
    lab.ok("delete", "authorizationpolicy", "denied")
    ask(lab, "/hello/denied-4")
    for number, line in ((1, 8), (2, 10), (3, 4)):
        (text,) = told(lab, f"/hello/denied-{number}")
        assert text.endswith(f"({policy}:{line})"), text
        assert "RBAC: access denied by the proxy of message-service" in text
    (text,) = told(lab, "/hello/denied-4")
    assert "  200  " in text
    assert str(policy) not in text


def test_lines_of_several_pods_are_in_order_of_time(lab: Lab) -> None:
    pods = {pod["metadata"]["name"] for pod in lab.ready("app=message-service", 2)}
    for number in range(12):
        ask(lab, f"/hello/ordered-{number}")
    wait(lambda: lab.ok(*WORDS).count("ordered-") == 12, "a line of each request", 10)
    lines = lab.ok(*WORDS, "--all-containers").splitlines()
    times = [line.split()[0] for line in lines]
    assert times == sorted(times)
    numbers = re.findall(r"ordered-(\d+) ", "".join(lines))
    assert numbers == [str(number) for number in range(12)]
    last = lab.ok(*WORDS, "--tail=2").splitlines()
    assert [line for line in lines if line in last] == last
    assert len(last) == 2 * len(pods)
    assert lab.ok(*WORDS, "--tail=0") == ""
    recent = lab.ok(*WORDS, "--since=1h").splitlines()
    assert recent == lines
    assert lab.ok("logs", "-l", "app=curl", "--words", "--since=1ms") == ""


def test_requests_to_come_are_printed_once(lab: Lab) -> None:
    ask(lab, "/hello/before")
    told(lab, "/hello/before")
    argv = [*COMMAND, "--state", str(lab.folder), *WORDS, "-f", "--tail=1"]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            for line in process.stdout:
                if "/hello/before " in line:
                    break
            ask(lab, "/hello/followed")
            assert "GET /hello/followed  200" in process.stdout.readline()
            ask(lab, "/hello/again")
            assert "GET /hello/again  200" in process.stdout.readline()
        finally:
            process.terminate()


LATE = """\
apiVersion: v1
kind: Pod
metadata: {name: late, labels: {app: late}}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - name: curl
    image: "curlimages/curl:8.16.0"
    command:
    - sh
    - -c
    - |
      while [ ! -e $FILE ]; do sleep 0.1; done
      python3 -m http.server 7070 &
      while [ -e $FILE ]; do sleep 0.1; done
      kill $!
      sleep infinity
    ports: [{containerPort: 7070}]
    readinessProbe: {tcpSocket: {port: 7070}, periodSeconds: 1}
---
apiVersion: v1
kind: Service
metadata: {name: late}
spec:
  clusterIP: None
  publishNotReadyAddresses: true
  selector: {app: late}
  ports: [{name: tcp, port: 7070}]
"""


def test_calls_before_a_server_was_ready_are_told_and_not_counted(lab: Lab, tmp_path: Path) -> None:
    """Those that fail when it has been ready count."""
    manifest = LATE.replace("$FILE", str(tmp_path / "up"))
    lab.ok("apply", "-f", "-", stdin=manifest)

    def ask_and_edge() -> dict[str, Any]:
        lab.run("exec", "curl", "--", "curl", "-sm5", "-o", "/dev/null", "http://late:7070/")
        found = json.loads(lab.ok("graph", "-o", "json", "--since", "5m"))
        return next((edge for edge in found if edge["destination"] == "late"), {"problems": {}})

    try:
        early = "before it was ready"
        wait(lambda: ask_and_edge()["problems"].get(early), "a call that came early", 20)
        edge = ask_and_edge()
        assert edge["problems"].keys() == {early}
        (tmp_path / "up").touch()
        lab.ready("app=late", 1)
        wait(lambda: ask_and_edge()["calls"], "a call that counts", 20)
        told = lab.ok("logs", "late", "--words")
        assert "late was not ready yet" in told
        (tmp_path / "up").unlink()
        wait(lambda: "UF at the server" in ask_and_edge()["problems"], "a failure", 20)
        assert ask_and_edge()["success"] < 1
    finally:
        lab.ok("delete", "-f", "-", stdin=manifest)
