"""Spans and counts of the calls of the database, by the conventions of OpenTelemetry."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.support.client import PATH, Client, until_ready
from tests.support.collector import Collector, attributes, collector
from tests.support.metrics import samples
from tests.support.mysql import MySQL
from tests.support.service import StartService
from tests.support.wait import wait

CLIENT = 3
"""The kind of a span, and the status below, as numbers of OTLP."""
ERROR = 2


@pytest.fixture
def collected() -> Iterator[Collector]:
    with collector() as made:
        yield made


def use(client: Client) -> None:
    """Each operation once, on one message."""
    href = client.add()
    for answer in (
        client.get(),
        client.get(params={"page": 60, "sort": "username"}),
        client.get(href),
        client.http.put(href, json={"username": "A", "message": "b"}),
        client.http.patch(href, json={"message": "c"}),
        client.http.delete(href),
    ):
        assert answer.is_success


def database_spans(collected: Collector) -> list[dict[str, Any]]:
    return [span for span in collected.otlp if span["kind"] == CLIENT]


def test_each_request_has_a_span_of_its_statement(
    start_service: StartService, collected: Collector, new_database: str
) -> None:
    url = urlsplit(new_database)
    service = start_service(
        "guestbook", DATABASE_URL=new_database, OTEL_EXPORTER_OTLP_ENDPOINT=collected.url
    )
    with Client(service) as client:
        until_ready(client)
        use(client)
    service.stop()
    servers = {span["spanId"]: span for span in collected.otlp if span["kind"] != CLIENT}
    found = {
        (servers[span["parentSpanId"]]["name"], span["name"]) for span in database_spans(collected)
    }
    item = f"{PATH}/{{id}}"
    assert {(parent.replace("{id:int}", "{id}"), name) for parent, name in found} == {
        (f"POST {PATH}", "INSERT message"),
        (f"GET {PATH}", "SELECT message"),
        (f"GET {item}", "SELECT message"),
        (f"PUT {item}", "UPDATE message"),
        (f"PATCH {item}", "UPDATE message"),
        (f"DELETE {item}", "DELETE message"),
    }
    for span in database_spans(collected):
        described = attributes(span)
        assert described["db.system.name"] == ("mysql" if url.port else "sqlite")
        assert described["db.operation.name"] == span["name"].split()[0]
        assert described["db.collection.name"] == "message"
        assert described["db.namespace"]
        if url.port:
            assert described["db.namespace"] == url.path[1:]
            assert described["server.address"] == "127.0.0.1"
            assert int(described["server.port"]) == url.port
        assert span.get("status", {}).get("code", 0) != ERROR
        assert "error.type" not in described


def test_a_database_that_is_away_is_an_error_of_its_span_and_counted(
    start_service: StartService, collected: Collector, tmp_path: Path
) -> None:
    server = MySQL(tmp_path)
    try:
        service = start_service(
            "guestbook", DATABASE_URL=server.url(), OTEL_EXPORTER_OTLP_ENDPOINT=collected.url
        )
        with Client(service) as client:
            until_ready(client)
            use(client)
            before = samples(service, "backend_calls_total", ("backend", "outcome"))
            assert before["database", "ok"] >= 7
            server.kill()
            assert client.get().status_code == 503
            after = samples(service, "backend_calls_total", ("backend", "outcome"))
            assert after["database", "unreachable"] == 1
            assert after["database", "ok"] == before["database", "ok"]
        service.stop()
    finally:
        server.stop()
    (failed,) = [
        span for span in database_spans(collected) if span.get("status", {}).get("code") == ERROR
    ]
    assert failed["name"] == "SELECT message"
    assert attributes(failed)["error.type"] == "unreachable"


def test_zipkin_knows_the_database_as_a_service(
    start_service: StartService, collected: Collector, mysql: MySQL
) -> None:
    service = start_service(
        "guestbook", DATABASE_URL=mysql.url(), ZIPKIN_ENDPOINT=f"{collected.url}/api/v2/spans"
    )
    with Client(service) as client:
        until_ready(client)
        client.get()

    def calls() -> list[dict[str, Any]]:
        return [span for span in collected.zipkin if span["kind"] == "CLIENT"]

    (call,) = wait(calls, "the span of the database")
    assert call["name"].lower() == "select message"
    assert call["remoteEndpoint"]["serviceName"] == "mysql"
