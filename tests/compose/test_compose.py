"""The guestbook in real containers, with real MySQL and Redis, through good and bad days."""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from tests.compose.stack import (
    ALWAYS,
    Stack,
    docker,
    require_engine,
    stand_ins,
)
from tests.support.ports import free_port
from tests.support.repository import ROOT
from tests.support.visitors import Visitors
from tests.support.wait import wait

pytestmark = pytest.mark.timeout(900)  # The first build downloads the dependencies.

LABELS = {"version": "v1", "revision": "0" * 40, "source": "https://example.com/guestbook"}
COMMANDS: list[str] = re.findall(
    r"^```sh\n(.*?)^```", (ROOT / "docs/compose.md").read_text(), re.M | re.S
)


def documented(*words: str) -> str:
    """Returns a command of docs/compose.md by words in it: a block, or a line of the first one."""
    commands: list[str] = [*COMMANDS[0].splitlines(), *COMMANDS[1:]]
    (found,) = [c for c in commands if all(word in c for word in words)]
    return found


DOWN = documented("down", "the messages stay")
DOWN_AND_FORGET = documented("down", "forgets everything")


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    require_engine()
    settings = {name: str(free_port()) for name in ("GUESTBOOK_PORT", "LOAD_PORT")}
    settings |= {"SOURCE": LABELS["source"], "REVISION": LABELS["revision"]}
    stack = Stack(f"guestbook-test-{os.getpid()}", settings | stand_ins())
    try:
        stack.compose("--profile", "load", "build", timeout=600)
        stack.compose("up", "--detach", "--wait", timeout=300)
        yield stack
    finally:
        stack.compose(
            "--profile", "*", "down", "--volumes", "--timeout", "10", check=False, timeout=120
        )


def test_the_page_takes_a_message_and_greets(stack: Stack) -> None:
    with httpx.Client(base_url=stack.url, follow_redirects=True) as browser:
        form = {"name": "Grace", "message": "Ahoy, <b>Compose</b> 🐳"}
        page = browser.post("/greet", data=form)
        assert page.status_code == 200
        assert "Ahoy, &lt;b&gt;Compose&lt;/b&gt; 🐳" in page.text
        container = stack.inspect("message-service")["Config"]["Hostname"]
        assert f"Hello Grace from {container} with 1.0" in page.text
        assert page.headers["x-ui-version"] == "1.0"


def test_the_log_says_where_the_page_is(stack: Stack) -> None:
    assert f"The guestbook: {stack.url}\n" in stack.compose("logs", "--no-log-prefix", "ui")


def test_the_images_say_what_they_were_built_from(stack: Stack) -> None:
    for service in ("ui", "message-service", "guestbook-service"):
        labels = stack.inspect(service)["Config"]["Labels"]
        found = {name: labels[f"org.opencontainers.image.{name}"] for name in LABELS}
        assert found == LABELS


def test_nothing_is_asked_of_a_registry_that_is_built_here(stack: Stack) -> None:
    services = json.loads(stack.compose("--profile", "*", "config", "--format", "json"))["services"]
    built = {name for name, service in services.items() if "build" in service}
    assert built == {"ui", "message-service", "guestbook-service", "load"}
    for name in built:
        assert services[name]["pull_policy"] == "build"
        assert services[name]["image"].startswith("localhost/guestbook/")


def test_a_second_clone_is_another_project(stack: Stack, tmp_path: Path) -> None:
    clone = tmp_path / "second-clone"
    clone.mkdir()
    (clone / "docker-compose.yml").symlink_to(ROOT / "docker-compose.yml")
    arguments = ["compose", "--project-directory", str(clone), "--file"]
    file = str(clone / "docker-compose.yml")
    config = json.loads(docker(*arguments, file, "config", "--format", "json"))
    assert config["name"] == "second-clone"
    assert stack.compose("ps", "--quiet")
    assert docker(*arguments, file, "ps", "--all", "--quiet") == ""


def test_nothing_had_to_restart_to_come_up(stack: Stack) -> None:
    """The start order is gated by health, so nobody met a database that was not there yet."""
    restarts = {service: stack.inspect(service)["RestartCount"] for service in ALWAYS}
    assert restarts == dict.fromkeys(ALWAYS, 0)
    assert "rror" not in stack.compose("logs", "--no-log-prefix", "guestbook-service", "ui")


def test_the_passwords_are_generated_and_kept_out_of_sight(stack: Stack) -> None:
    command = ["exec", "-T", "mysql", "bash", "-c"]
    password = stack.compose(*command, "cat /run/credentials/password")
    root = stack.compose(*command, "cat /run/credentials/root-password")
    assert re.fullmatch("[0-9a-f]{32}", password)
    assert re.fullmatch("[0-9a-f]{32}", root)
    assert password != root
    for service in (*ALWAYS, "credentials"):
        details = json.dumps(stack.inspect(service))
        assert password not in details
        assert root not in details
    logs = stack.compose("logs")
    assert password not in logs
    assert root not in logs
    # The guestbook service can read its own password, not root's.
    peek = stack.compose(
        "exec", "-T", "guestbook-service", "cat", "/run/credentials/root-password", check=False
    )
    assert peek == ""


def test_mysql_uses_its_modern_login(stack: Stack) -> None:
    query = "SELECT plugin FROM mysql.user WHERE user = 'guestbook'"
    command = f'MYSQL_PWD=$(cat /run/credentials/root-password) mysql -uroot -Ne "{query}"'
    assert stack.compose("exec", "-T", "mysql", "bash", "-c", command).split() == [
        "caching_sha2_password"
    ]


@pytest.mark.parametrize("service", ALWAYS)
def test_containers_can_do_little(stack: Stack, service: str) -> None:
    details = stack.inspect(service)
    host = details["HostConfig"]
    assert host["ReadonlyRootfs"]
    assert host["CapDrop"] == ["ALL"]
    assert "no-new-privileges:true" in host["SecurityOpt"]
    assert host["Memory"] > 0
    assert host["NanoCpus"] > 0
    assert host["RestartPolicy"]["Name"] == "unless-stopped"
    assert int(details["Config"]["User"].split(":")[0]) > 0
    status = stack.compose("exec", "-T", service, "cat", "/proc/1/status")
    assert re.search(r"^CapEff:\s+0+$", status, re.M)
    assert re.search(r"^NoNewPrivs:\s+1$", status, re.M)


def test_only_the_page_is_published_and_only_to_this_machine(stack: Stack) -> None:
    published: dict[str, list[Any]] = {}
    for service in ALWAYS:
        ports = stack.inspect(service)["NetworkSettings"]["Ports"]
        if bindings := [binding for found in ports.values() if found for binding in found]:
            published[service] = bindings
    assert published == {
        "ui": [{"HostIp": "127.0.0.1", "HostPort": stack.environment["GUESTBOOK_PORT"]}]
    }


@pytest.mark.parametrize("service", ["ui", "message-service", "guestbook-service"])
def test_a_stop_is_heard_and_clean(stack: Stack, service: str) -> None:
    """PID 1 gets the signal: the engine would otherwise kill it after 35 s, with status 137."""
    stack.compose("stop", service)
    state = stack.inspect(service)["State"]
    assert state["ExitCode"] == 0
    stack.compose("up", "--detach", "--wait")


def test_a_trace_has_every_hop(stack: Stack) -> None:
    """A collector under Zipkin's name prints what it is sent; the real one can't be pulled here."""
    collector = (
        "import http.server as h\n"
        "class Collector(h.BaseHTTPRequestHandler):\n"
        "    def do_POST(self):\n"
        "        print(self.rfile.read(int(self.headers['content-length'])).decode(), flush=True)\n"
        "        self.send_response(202); self.end_headers()\n"
        "    def log_message(self, *_): pass\n"
        "h.HTTPServer(('', 9411), Collector).serve_forever()\n"
    )
    name = f"{stack.project}-zipkin"
    arguments = ["--detach", "--rm", "--name", name, "--network-alias", "zipkin"]
    network = f"--network={stack.project}_default"
    docker("run", *arguments, network, "localhost/guestbook/ui:v1", "python", "-c", collector)
    try:
        with httpx.Client(base_url=stack.url) as browser:
            browser.post("/greet", data={"name": "Ada", "message": "Traced"})
            browser.get("/")

        def hops() -> dict[str, set[str]] | None:
            written, _, _ = docker("logs", name).rpartition("\n")
            spans = [span for line in written.splitlines() for span in json.loads(line)]
            for trace in {span["traceId"] for span in spans}:
                mine = [span for span in spans if span["traceId"] == trace]
                kinds: dict[str, set[str]] = {}
                for span in mine:
                    kinds.setdefault(span["localEndpoint"]["serviceName"], set()).add(
                        span.get("kind", "")
                    )
                ids = {span["id"] for span in mine}
                whole = all(span.get("parentId", span["id"]) in ids for span in mine)
                if kinds.keys() == {"ui", "message-service", "guestbook-service"} and whole:
                    return kinds
            return None

        found = wait(hops, "a trace of all three services", 60)
        assert {"SERVER", "CLIENT"} <= found["ui"]
        assert "SERVER" in found["message-service"]
        assert "SERVER" in found["guestbook-service"]
    finally:
        docker("rm", "--force", name, check=False)


def test_a_profile_does_not_come_back_at_a_boot() -> None:
    """The engine restarts what says `unless-stopped`, and a plain `down` sees no profile."""
    services = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
    restarts = {n: service["restart"] for n, service in services.items() if "profiles" in service}
    assert set(restarts.values()) == {"on-failure"}, restarts


def test_the_load_profile_visits(stack: Stack) -> None:
    stack.compose("--profile", "load", "up", "--detach", "--wait", "load")
    try:
        url = f"http://localhost:{stack.environment['LOAD_PORT']}/stats/requests"

        def totals() -> dict[str, Any] | None:
            try:
                answer = httpx.get(url)
            except httpx.HTTPError:
                return None
            rows = {row["name"]: row for row in answer.json()["stats"]}
            return rows if {"/", "/greet"} <= rows.keys() else None

        rows = wait(totals, "visits to the page and signatures", 90)
        assert rows["Aggregated"]["num_failures"] == 0, rows
    finally:
        stack.compose("--profile", "load", "rm", "--stop", "--force", "load")


def test_every_acknowledged_message_is_kept_exactly_once(stack: Stack) -> None:
    """Through the crash of each container in turn, and a whole `down` and `up`."""
    with Visitors(stack.url) as visitors:
        for service in ALWAYS:
            visitors.wait_for(10, f"posts before the crash of {service}")
            stack.crash(service)
            visitors.wait_for(10, f"posts after the crash of {service}")
        assert visitors.failures > 0, "no crash was noticed, so nothing was tested"

    # With a profile up: the documented command stops that, too.
    stack.compose("--profile", "load", "up", "--detach", "--wait", "load")
    stack.run(DOWN)
    assert stack.leftovers() == []
    stack.compose("up", "--detach", "--wait")
    # A second start finds the passwords, and has nothing to say.
    assert stack.compose("logs", "--no-log-prefix", "credentials") == ""

    stored = Counter(stack.stored())
    lost = [message for message in visitors.acknowledged if stored[message] == 0]
    twice = [message for message, count in stored.items() if count > 1 and len(message) == 32]
    assert len(visitors.acknowledged) >= 100
    assert (lost, twice) == ([], [])


def test_a_backup_is_restored_into_empty_volumes(stack: Stack, tmp_path: Path) -> None:
    """With the commands of docs/compose.md, in its order."""
    with httpx.Client(base_url=stack.url) as browser:
        form = {"name": "Ada", "message": "Zurück, «bitte» 🐳\\'"}
        assert browser.post("/greet", data=form).status_code == 303
    before = stack.stored()
    assert form["message"] in before
    password = stack.compose("exec", "-T", "mysql", "cat", "/run/credentials/password")

    backup = tmp_path / "guestbook.sql"
    stack.run(documented("mysqldump").replace("guestbook.sql", str(backup)))
    assert password not in backup.read_text()
    stack.run(DOWN_AND_FORGET)
    assert stack.leftovers() == []
    stack.compose("up", "--detach", "--wait")
    assert stack.stored() == []
    stack.run(documented("guestbook.sql", "<").replace("guestbook.sql", str(backup)))

    assert stack.stored() == before
    with httpx.Client(base_url=stack.url, follow_redirects=True) as browser:
        page = browser.post("/greet", data={"name": "Ada", "message": "And after"})
        assert "And after" in page.text
