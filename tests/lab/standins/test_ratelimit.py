"""The rate limit stand-in: over gRPC and HTTP as a process, and asked by a real Envoy."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
from envoy.service.ratelimit.v3 import rls_pb2, rls_pb2_grpc
from limits.storage import MemoryStorage

from lab.model import ServicePort
from lab.standins import ratelimit
from lab.standins.ratelimit_config import ConfigError, load
from tests.support import harness
from tests.support.redis import RedisServer
from tests.support.repository import ROOT
from tests.support.wait import wait

CONFIG = """
domain: guestbook-ratelimit
descriptors:
- key: plan
  value: FREE
  descriptors:
  - key: account
    rate_limit: {unit: minute, requests_per_unit: 10}
- key: plan
  value: PREMIUM
  descriptors:
  - key: account
    rate_limit: {unit: minute, requests_per_unit: 100}
- key: path
  value: /static/*
  rate_limit: {unlimited: true}
- key: path
  rate_limit: {unit: hour, requests_per_unit: 1}
- key: shadow
  shadow_mode: true
  rate_limit: {unit: day, requests_per_unit: 0}
"""
OVER, OK = rls_pb2.RateLimitResponse.OVER_LIMIT, rls_pb2.RateLimitResponse.OK


def request(
    *descriptors: dict[str, str], domain: str = "guestbook-ratelimit", hits: int = 0
) -> Any:
    made = rls_pb2.RateLimitRequest(domain=domain, hits_addend=hits)
    for descriptor in descriptors:
        one = made.descriptors.add()
        for key, value in descriptor.items():
            one.entries.add(key=key, value=value)
    return made


@pytest.fixture
def limiter(tmp_path: Path) -> ratelimit.Limiter:
    (tmp_path / "config.yaml").write_text(CONFIG)
    return ratelimit.Limiter(MemoryStorage(), load(tmp_path))


NOON = 1_800_000_000 // 86400 * 86400 + 43200.0


def codes(limiter: ratelimit.Limiter, asked: Any, times: int, now: float) -> list[int]:
    return [limiter.decide(asked, now).overall_code for _ in range(times)]


def test_ten_of_twenty_pass_and_the_window_is_the_clocks_minute(limiter: ratelimit.Limiter) -> None:
    free = request({"plan": "FREE", "account": "user"})
    assert codes(limiter, free, 20, NOON + 59) == [OK] * 10 + [OVER] * 10
    assert codes(limiter, free, 11, NOON + 60) == [OK] * 10 + [OVER]
    status = limiter.decide(free, NOON + 75).statuses[0]
    assert status.duration_until_reset.seconds == 45
    assert status.current_limit.requests_per_unit == 10


def test_each_account_and_plan_has_its_own_budget(limiter: ratelimit.Limiter) -> None:
    for account in ("user", "other", "a/b", "a"):
        free = request({"plan": "FREE", "account": account})
        assert codes(limiter, free, 11, NOON) == [OK] * 10 + [OVER]
    premium = request({"plan": "PREMIUM", "account": "user"})
    assert codes(limiter, premium, 101, NOON) == [OK] * 100 + [OVER]


def test_what_no_rule_is_for_is_not_limited(limiter: ratelimit.Limiter) -> None:
    for asked in (
        request({"plan": "FREE"}),
        request({"plan": "GOLD", "account": "user"}),
        request({"account": "user"}),
        request({"plan": "FREE", "account": "user", "more": "x"}),
        request({"plan": "FREE", "account": "user"}, domain="other"),
        request({"path": "/static/a.css"}),
    ):
        assert codes(limiter, asked, 30, NOON) == [OK] * 30


def test_units_hits_shadow_and_several_descriptors(limiter: ratelimit.Limiter) -> None:
    path = request({"path": "/a"})
    assert codes(limiter, path, 2, NOON) == [OK, OVER]
    assert codes(limiter, path, 1, NOON + 3599) == [OVER]
    assert codes(limiter, path, 1, NOON + 3600) == [OK]
    many = request({"plan": "FREE", "account": "many"}, hits=6)
    assert codes(limiter, many, 2, NOON) == [OK, OVER]
    assert codes(limiter, request({"shadow": "x"}), 3, NOON) == [OK] * 3
    both = limiter.decide(request({"path": "/a"}, {"shadow": "x"}), NOON + 3600)
    assert both.overall_code == OVER
    assert [status.code for status in both.statuses] == [OVER, OK]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("descriptors: []", "domain"),
        ("domain: a\ndescriptors: [{value: x}]", "descriptors.0.key"),
        ("domain: a\ndescriptors: [{key: x, rate_limit: {requests_per_unit: 1}}]", "a.x"),
        (
            "domain: a\ndescriptors: [{key: x, rate_limit: {unit: week, requests_per_unit: 1}}]",
            "unit",
        ),
        ("domain: a\ndescriptors: [{key: x}, {key: x}]", "duplicate descriptor composite key"),
        ("domain: a\ndescriptors: [{key: x, ratelimit: {}}]", "ratelimit"),
        ("domain: [", "config.yaml"),
    ],
)
def test_a_wrong_configuration_is_told(text: str, problem: str, tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(text)
    with pytest.raises(ConfigError) as raised:
        load(tmp_path)
    assert problem in str(raised.value)


@dataclass
class Process:
    host: str
    config: Path
    popen: subprocess.Popen[bytes]
    log: Path

    def ask(self, asked: Any) -> Any:
        with grpc.insecure_channel(f"{self.host}:8081") as channel:
            return rls_pb2_grpc.RateLimitServiceStub(channel).ShouldRateLimit(asked, timeout=10)


@contextmanager
def process(folder: Path, host: str, **environ: str) -> Iterator[Process]:
    """The stand-in as a container would run it, on an address of its own."""
    config = folder / "data" / "ratelimit" / "config"
    config.mkdir(parents=True)
    (config / "config.yaml").write_text(CONFIG)
    log = folder / "log"
    with log.open("wb") as output:
        popen = subprocess.Popen(
            [sys.executable, "-m", "lab.standins.ratelimit"],
            env={
                **os.environ,
                "HOST": host,
                "USE_STATSD": "false",
                "RUNTIME_ROOT": str(folder / "data"),
                "RUNTIME_SUBDIRECTORY": "ratelimit",
                "LOG_LEVEL": "debug",
                **environ,
            },
            stdout=output,
            stderr=output,
        )
    try:
        yield Process(host, config, popen, log)
    finally:
        popen.terminate()
        popen.wait(20)


def healthy(host: str) -> bool:
    try:
        return httpx.get(f"http://{host}:8080/healthcheck", timeout=5).text == "OK"
    except httpx.HTTPError:
        return False


def test_the_process_serves_reloads_and_ends(tmp_path: Path) -> None:
    with harness.free_slice() as number:
        host = f"127.77.{number}.1"
        with process(tmp_path, host) as running:
            wait(lambda: healthy(host))
            assert running.ask(request({"path": "/a"})).overall_code == OK
            assert running.ask(request({"path": "/a"})).overall_code == OVER
            body = '{"domain": "guestbook-ratelimit", "descriptors": [{"entries": [%s]}]}'
            limited = body % '{"key": "path", "value": "/a"}'
            answer = httpx.post(f"http://{host}:8080/json", content=limited)
            assert (answer.status_code, answer.json()["overallCode"]) == (429, "OVER_LIMIT")
            assert httpx.post(f"http://{host}:8080/json", content="no").status_code == 400
            stats = httpx.get(f"http://{host}:6070/stats").text
            assert "guestbook-ratelimit.path.over_limit: 2" in stats
            with pytest.raises(grpc.RpcError) as raised:
                running.ask(request({"path": "/a"}, domain=""))
            assert "domain must not be empty" in str(raised.value)

            replace(running, "domain: [")
            replace(running, CONFIG.replace("unit: hour, requests_per_unit: 1", "unlimited: true"))
            wait(lambda: running.ask(request({"path": "/a"})).overall_code == OK)
        assert running.popen.returncode == 0


def replace(running: Process, text: str) -> None:
    """As the kubelet does with a ConfigMap: the file is another one at once."""
    new = running.config / ".new"
    new.write_text(text)
    new.replace(running.config / "config.yaml")


@pytest.mark.parametrize(
    ("environ", "problem"),
    [
        ({"REDIS_URL": "127.0.0.1:1"}, "no Redis answers at REDIS_URL=127.0.0.1:1"),
        ({"BACKEND_TYPE": "memcache"}, "BACKEND_TYPE=memcache"),
        ({"USE_STATSD": "maybe"}, 'must be "true" or "false"'),
        ({"RUNTIME_APPDIRECTORY": "nowhere", "GRPC_PORT": "x"}, "GRPC_PORT=x"),
    ],
)
def test_a_wrong_setting_ends_it_with_one_line(
    environ: dict[str, str], problem: str, tmp_path: Path
) -> None:
    with process(tmp_path, "127.0.0.1", **environ) as running:
        assert running.popen.wait(30) == 1
        output = running.log.read_text()
    assert problem in output
    assert "Traceback" not in output


def test_the_counters_are_in_redis(tmp_path: Path) -> None:
    """Two instances share them, and with Redis away there is an error and no answer."""
    with harness.free_slice() as number:
        hosts = [f"127.77.{number}.{index}" for index in (1, 2)]
        redis = RedisServer(tmp_path)
        redis.start()
        try:
            url = f"127.0.0.1:{redis.port}"
            with (
                process(tmp_path / "a", hosts[0], REDIS_URL=url) as first,
                process(tmp_path / "b", hosts[1], REDIS_URL=url) as second,
            ):
                wait(lambda: healthy(hosts[0]) and healthy(hosts[1]))
                assert first.ask(request({"path": "/a"})).overall_code == OK
                assert second.ask(request({"path": "/a"})).overall_code == OVER
                redis.kill()
                with pytest.raises(grpc.RpcError) as raised:
                    first.ask(request({"path": "/b"}))
                assert raised.value.code() == grpc.StatusCode.UNKNOWN
        finally:
            redis.kill()


GATEWAY = """
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: guestbook, namespace: default}
spec:
  selector: {istio: ingressgateway}
  servers:
  - {port: {number: 80, name: http, protocol: HTTP}, hosts: ["*"]}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: all, namespace: default}
spec:
  hosts: ["*"]
  gateways: [guestbook]
  http: [{route: [{destination: {host: ui}}]}]
"""


def test_a_real_gateway_limits_with_the_manifests_of_the_exercise(tmp_path: Path) -> None:
    exercise = ROOT / "istio" / "11-rate-limiting"
    filters = [
        (exercise / name).read_text()
        for name in ("filter-ratelimit.yaml", "filter-ratelimit-svc.yaml")
    ]
    with harness.mesh(tmp_path / "mesh") as mesh:
        mesh.add("ui")
        mesh.service("ui")
        limiter = mesh.add("ratelimit", server=False, ports={"grpc": 8081})
        mesh.service("ratelimit", ports=(ServicePort("grpc", 8081, 8081, "GRPC"),))
        gateway = mesh.gateway()
        mesh.start()
        mesh.apply("---\n".join([GATEWAY, *filters]))

        def ask(**headers: str) -> httpx.Response:
            named = {name.replace("_", "-"): value for name, value in headers.items()}
            return httpx.get(f"http://{gateway.pod.address}:8080/", headers=named, timeout=20)

        wait(lambda: ask().status_code == 200)
        wait(lambda: ask(x_plan="FREE", x_account="user").status_code == 500)
        with process(tmp_path, limiter.pod.address):
            wait(lambda: healthy(limiter.pod.address))
            wait(lambda: ask(x_plan="FREE", x_account="probe").status_code == 200)
            answers = [ask(x_plan="PREMIUM", x_account="user") for _ in range(12)]
            assert {answer.status_code for answer in answers} == {200}
            # Ten pass, and at most ten more should the minute end meanwhile.
            answers = [ask(x_plan="FREE", x_account="user") for _ in range(31)]
            limited = [answer for answer in answers if answer.status_code == 429]
            assert 11 <= len(limited) <= 21
            assert {answer.headers.get("x-envoy-ratelimited") for answer in limited} == {"true"}
            assert ask(x_plan="FREE").status_code == 200
