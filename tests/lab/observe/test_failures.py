"""Failures, each provoked in one running lab, and shown by graph, metrics and log in words."""

from __future__ import annotations

import json
import re
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.support.lab import SMALL, Lab, running
from tests.support.namespaces import require_namespaces
from tests.support.wait import wait

MANIFEST = Path(__file__).with_name("failures.yaml")


@dataclass(frozen=True)
class Failure:
    """A request of a client that fails, and its traces."""

    host: str
    problem: str
    """On the edge from curl to the host, as a regular expression."""
    flags: str
    """Of `istio_requests_total`."""
    code: int
    says: str
    """In the log in words."""
    rule: str = ""
    """The comment at the end of the line that the log names."""
    path: str = "/hello/x"
    url: str = ""
    """In place of the host and the path."""
    options: tuple[str, ...] = ()
    times: int = 1

    def __str__(self) -> str:
        return self.url or self.host


FAILURES = (
    Failure("abort", "503 FI", "FI", 503, "an abort by the proxy of curl", "FI"),
    Failure("delay", "DI", "DI", 200, "a delay by the proxy of curl", "DI"),
    Failure("forbidden", "403 RBAC", "-", 403, "denied by the proxy of message-service", "RBAC"),
    Failure(
        *("tokens", "401 JWT", "-", 401, "token refused by the proxy of message-service", "JWT"),
        options=("-H", "Authorization: Bearer a.b.c"),
    ),
    Failure("limited", "429 RL", "RL|-", 429, "rate limit", "RL", times=3),
    Failure(
        *(
            "global",
            "429 RL",
            "RL",
            429,
            "RL: rate limit: the rate limit service",
            "RL of the service",
        ),
        times=3,
    ),
    Failure(
        *("overflow", "503 UO", "UO", 503, "a limit of the connection pool", "UO"),
        times=24,
        options=("-Z",),
    ),
    Failure(
        *(
            "nobody",
            "503 UH",
            "UH",
            503,
            "UH: no healthy upstream: subset none selects",
            "UH",
        )
    ),
    Failure(
        "unresolved.test",
        "503 UH",
        "UH",
        503,
        "the name unresolved.test could not be resolved",
        "unresolved",
    ),
    Failure("no-cluster", "503 NC", "NC", 503, "no cluster", "NC"),
    Failure("no-route", "404 NR", "NR", 404, "no route"),
    Failure(
        "plain-text", "503 U[FC]", "U[FC].*", 503, "sends plain text, but PeerAuth", "UF or UC"
    ),
    Failure("retried", "404 URX", "URX", 404, "retries exhausted", "URX", path="/nowhere"),
    Failure("direct", "418 answered", "-", 418, "answered by the proxy", "answered: direct"),
    Failure("redirect", "answered", "-", 301, "answered by the proxy", "answered: redirect"),
    Failure("slow.test", "504 UT", "UT", 504, "timeout", "UT"),
    Failure("closing.test", "503 UC", "UC", 503, "closed the connection", "UC"),
    Failure("garbage.test", "502 UPE", "UPE", 502, "no HTTP", "UPE"),
    Failure("failing.test", "500", "-", 500, "failing.test itself answered so"),
    Failure("hasty.test", "DC", "DC", 0, "the client closed", options=("-m", "0.3")),
    Failure("refused.test", "503 .*UF", ".*UF.*", 503, "connection failure"),
    Failure("ejected.test", "503 UH", "UH", 503, "no healthy upstream", "ejected", times=3),
    Failure("bytes.test", "UF.*", ".*UF.*", 0, "connection failure", path=":7001/"),
    Failure("unknown.test", "502 block_all", "-", 502, "block_all: unknown host", "closed"),
    Failure(
        *("BlackHoleCluster", "UH", "UH", 0, "UH: unknown host", "closed"),
        path=":443/",
        options=("--connect-to", "::198.51.100.9:443"),
    ),
    # TLS to an address: no server name says where to.
    Failure(
        *("BlackHoleCluster", "UH", "UH", 0, "UH: unknown host", "closed"),
        url="https://198.51.100.10:8443/",
    ),
    Failure(
        *("denied", "RBAC", "-", 0, "TCP 7000  closed .*access denied by the proxy", "denied"),
        path=":7000/",
    ),
)
SERVICES = [
    one.host for one in FAILURES if "." not in one.host and one.path[0] == "/" and not one.url
]


def serve(connection: socket.socket) -> None:
    """Answers one request as its host says."""
    with connection:
        asked = connection.recv(4096).decode().lower()
        if "slow.test" in asked or "hasty.test" in asked:
            time.sleep(1)
        if "garbage.test" in asked:
            connection.sendall(b"garbage\r\n\r\n")
        elif "closing.test" not in asked:
            connection.sendall(b"HTTP/1.1 500 Broken\r\ncontent-length: 0\r\n\r\n")


@contextmanager
def server() -> Iterator[int]:
    """A server of this test's own; gives its port."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def accept() -> None:
            while True:
                try:
                    connection, _ = listening.accept()
                except OSError:
                    return
                threading.Thread(target=serve, args=(connection,), daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()
        yield listening.getsockname()[1]
        listening.shutdown(socket.SHUT_RDWR)


def ask(lab: Lab, failure: Failure) -> None:
    url = failure.url or f"http://{failure.host}{failure.path}"
    urls = [url] * failure.times
    # A ServiceEntry is in no DNS; any address leads to the sidecar.
    ports = (80, 7001) if "." in failure.host else ()
    places = [f"{failure.host}:{port}:198.51.100.9" for port in ports]
    known = [word for place in places for word in ("--resolve", place)]
    curl = ("curl", "-s", "-o", "/dev/null", *known, *failure.options)
    lab.run("exec", "curl", "--", *curl, *urls)


@dataclass(frozen=True)
class Shown:
    """All that a learner sees afterwards."""

    edges: dict[str, list[dict[str, Any]]]
    """The edges from curl, by what it called."""
    words: list[str]
    metrics: list[dict[str, str]]
    file: Path


def shown(lab: Lab, file: Path) -> Shown:
    edges: dict[str, list[dict[str, Any]]] = {}
    for edge in json.loads(lab.ok("graph", "-o", "json", "--since", "5m")):
        if edge["source"] == "curl":
            edges.setdefault(edge["destination"], []).append(edge)
    words = lab.ok("logs", "curl", "-c", "istio-proxy", "--words").splitlines()
    samples = [
        dict(sample.labels)
        for family in text_string_to_metric_families(lab.ok("metrics"))
        for sample in family.samples
        if sample.name in ("istio_requests_total", "istio_tcp_connections_closed_total")
    ]
    return Shown(edges, words, samples, file)


@pytest.fixture(scope="module", params=["pods", "proxy"])
def seen(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Shown]:
    """Everything was provoked once, each against a host of its own, in a lab of its own."""
    if request.param == "pods":
        require_namespaces()
    folder = tmp_path_factory.mktemp("lab")
    options = ("-f", str(SMALL), "--network", request.param)
    with server() as port, running(folder / "state", *options) as lab:
        host = "10.244.0.2" if request.param == "pods" else "127.0.0.1"
        file = folder / "failures.yaml"
        text = MANIFEST.read_text().replace("$PORT", str(port)).replace("$HOST", host)
        for name in SERVICES:
            text += f"---\napiVersion: v1\nkind: Service\nmetadata: {{name: {name}}}\nspec:\n"
            text += "  selector: {app: message-service}\n"
            text += "  ports: [{name: http, port: 80, targetPort: http}]\n"
        file.write_text(text)
        lab.ok("apply", "-f", str(file))
        lab.ready("app=message-service", 2)
        lab.ready("app=limiter", 1)
        for failure in FAILURES:
            ask(lab, failure)

        def all_told() -> bool:
            edges = shown(lab, file).edges
            return all(failure.host in edges for failure in FAILURES)

        wait(all_told, "an edge for each failure", 10)
        yield shown(lab, file)


@pytest.mark.parametrize("failure", FAILURES, ids=str)
def test_a_failure_is_on_its_edge(seen: Shown, failure: Failure) -> None:
    problems = [name for edge in seen.edges[failure.host] for name in edge["problems"]]
    assert any(re.fullmatch(failure.problem, name) for name in problems), problems
    fine = failure.code in range(200, 400)
    assert all((edge["success"] == 1) == fine for edge in seen.edges[failure.host])


def test_a_connection_that_was_taken_and_then_denied_failed(seen: Shown) -> None:
    (edge,) = seen.edges["denied"]
    assert (edge["calls"], edge["success"], edge["problems"]) == (1, 0, {"RBAC": 1})


def test_tls_without_a_server_name_is_cut_off_as_other_bytes_are(seen: Shown) -> None:
    edges = [edge for edge in seen.edges["BlackHoleCluster"] if edge["protocol"] == "TCP"]
    assert sum(edge["problems"]["UH"] for edge in edges) == 2
    closed = re.compile(r"curl → BlackHoleCluster  TCP( \d+)?  closed")
    assert len([line for line in seen.words if closed.search(line)]) == 2


def test_retries_are_told_beside_the_edge(seen: Shown) -> None:
    (edge,) = seen.edges["retried"]
    assert edge["problems"] == {"404 URX": 1, "retried": 1}


@pytest.mark.parametrize("failure", FAILURES, ids=str)
def test_a_failure_is_counted(seen: Shown, failure: Failure) -> None:
    found = [
        labels
        for labels in seen.metrics
        if labels["reporter"] == "source"
        and labels["source_workload"] == "curl"
        and labels["destination_service"].split(".default.svc")[0] == failure.host
        and int(labels.get("response_code", 0)) == failure.code
        and re.fullmatch(failure.flags, labels["response_flags"])
    ]
    assert found, [one for one in seen.metrics if failure.host in one["destination_service"]]


@pytest.mark.parametrize("failure", FAILURES, ids=str)
def test_a_failure_is_told_in_words(seen: Shown, failure: Failure) -> None:
    lines = [line for line in seen.words if f"curl → {failure.host}  " in line]
    told = [line for line in lines if re.search(failure.says, line)]
    assert told, lines
    if failure.rule:
        place = re.search(r"\((\S+):(\d+)\)$", told[-1])
        assert place is not None, told
        assert place[1] == str(seen.file)
        text = seen.file.read_text().splitlines()[int(place[2]) - 1]
        assert text.endswith(f"# {failure.rule}"), (text, told[-1])


def test_the_delay_is_in_the_latency(seen: Shown) -> None:
    (edge,) = seen.edges["delay"]
    assert edge["p50"] >= 400


def test_a_server_that_wants_mutual_tls_tells_why(seen: Shown) -> None:
    problems = [name for edge in seen.edges["message-service"] for name in edge["problems"]]
    assert "NR at the server" in problems
