"""Trace headers, spans and metrics of the page and of the calls behind it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from uuid import UUID

import httpx
import pytest

from tests.services.ui.backend import HANG, RESET, Answer, Backend, Guestbook, as_json, greets
from tests.support.collector import Collector, Json, attributes, collector
from tests.support.redis import RedisServer
from tests.support.ui import StartUi, Ui
from tests.support.wait import wait

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
PARENT = f"00-{TRACE}-{SPAN}-01"
NAMES = (
    "traceparent",
    "tracestate",
    "b3",
    "x-b3-traceid",
    "x-b3-spanid",
    "x-b3-parentspanid",
    "x-b3-sampled",
    "x-b3-flags",
)
CLEAN = {
    **dict.fromkeys(NAMES, "anything printable=~"),
    "x-request-id": "a-request",
    "traceparent": PARENT,
    "x-b3-traceid": TRACE,
}
SERVER, CLIENT = 2, 3
"""Kinds of spans, as OTLP numbers them."""
BACKENDS = ("message-service", "guestbook-service")
ERROR = 2
"""The status of a span that failed."""


class TestTraceHeaders:
    @pytest.fixture
    def visitor(self, ui: Ui) -> Iterator[httpx.Client]:
        """A visitor with a name, so that a page asks both back ends."""
        with ui.browser() as browser:
            browser.post("/greet", data={"name": "Ada"})
            yield browser

    def relayed(self, *backends: Backend) -> dict[str, str]:
        """Returns the headers of these names on the last call, the same to each back end."""
        first, *others = (
            {name: seen.headers[name] for name in CLEAN if name in seen.headers}
            for seen in (backend.seen[-1] for backend in backends)
        )
        assert all(other == first for other in others)
        return first

    def test_they_and_the_request_id_reach_both_back_ends(
        self, visitor: httpx.Client, message: Backend, guestbook: Backend
    ) -> None:
        visitor.get("/", headers=CLEAN)
        assert self.relayed(message, guestbook) == CLEAN
        visitor.post("/greet", data={"name": "Ada", "message": "x"}, headers=CLEAN)
        assert self.relayed(guestbook) == CLEAN

    @pytest.mark.parametrize("name", NAMES)
    @pytest.mark.parametrize(
        "value", ["v=é".encode(), b"v=\xff", b"a\tb", b"x" * 1001], ids=["é", "ff", "tab", "long"]
    )
    def test_one_that_cannot_be_relayed_is_dropped_and_the_others_are_not(
        self, visitor: httpx.Client, message: Backend, guestbook: Backend, name: str, value: bytes
    ) -> None:
        others = {key: clean for key, clean in CLEAN.items() if key != name}
        headers = [(key.encode(), clean.encode()) for key, clean in others.items()]
        headers.append((name.encode(), value))
        assert visitor.get("/", headers=headers).status_code == 200
        assert self.relayed(message, guestbook) == others
        form = {"name": "Ada", "message": "x"}
        assert visitor.post("/greet", data=form, headers=headers).status_code == 303
        assert self.relayed(guestbook) == others

    def test_a_repeated_one_is_one_list(
        self, visitor: httpx.Client, message: Backend, guestbook: Backend
    ) -> None:
        states = [("tracestate", "a=" + "1" * 300), ("tracestate", "b=" + "2" * 300)]
        visitor.get("/", headers=states)
        relayed = self.relayed(message, guestbook)["tracestate"]
        assert relayed.replace(" ", "") == ",".join(value for _, value in states)
        visitor.get("/", headers=states * 2)
        assert "tracestate" not in self.relayed(message, guestbook)

    @pytest.mark.parametrize(
        "request_id", [b"a trace_id=forged", b"x" * 129, "é".encode(), b"a\tb", b"a;b", b""]
    )
    def test_a_request_id_that_is_none_is_replaced(
        self,
        ui: Ui,
        visitor: httpx.Client,
        message: Backend,
        guestbook: Backend,
        request_id: bytes,
    ) -> None:
        visitor.get("/", headers=[(b"x-request-id", request_id), (b"traceparent", PARENT.encode())])
        relayed = self.relayed(message, guestbook)
        assert UUID(relayed["x-request-id"])
        assert relayed["traceparent"] == PARENT
        line = ui.wait_for_line(relayed["x-request-id"])
        assert "forged" not in line

    @pytest.mark.parametrize("path", ["/greet", "/logout", "/nowhere", "/static/style.css"])
    def test_no_page_fails_for_them(self, ui: Ui, path: str) -> None:
        headers = [(name.encode(), b"\xc3\xa9") for name in CLEAN]
        for method in ("GET", "POST"):
            answer = httpx.request(
                method, ui.url + path, headers=headers, data={"name": "Ada"}, trust_env=False
            )
            assert answer.status_code < 500


@pytest.fixture
def collected() -> Iterator[Collector]:
    with collector() as made:
        yield made


@dataclass(frozen=True)
class Visit:
    """The spans of a visit, and the requests that the back ends got in it."""

    spans: list[Json]
    message: Backend
    guestbook: Backend


@pytest.fixture(scope="module")
def visit(start_ui: StartUi, redis: RedisServer) -> Iterator[Visit]:
    """A visitor signs, looks, looks at two outages, and leaves."""
    message, guestbook = Backend(greets), Backend(Guestbook())
    message.start()
    guestbook.start()
    with collector() as collected:
        ui = start_ui(
            MESSAGE_HOST=message.url,
            GUESTBOOK_HOST=guestbook.url,
            REDIS_HOST="127.0.0.1",
            REDIS_PORT=redis.port,
            BACKEND_TIMEOUT=1,
            OTEL_EXPORTER_OTLP_ENDPOINT=collected.url,
        )
        with ui.browser() as browser:
            browser.get("/")
            browser.post("/greet", data={"name": "Ada", "message": "x"})
            browser.get("/", headers={"traceparent": PARENT})
            message.behaviour, guestbook.behaviour = lambda _: Answer(503), lambda _: HANG
            browser.get("/?page=2")
            message.behaviour = lambda _: RESET
            browser.get("/?page=3")
            browser.post("/logout")
        ui.stop()  # The spans that are not exported yet are exported at the end.
    yield Visit(collected.otlp, message, guestbook)
    message.stop()
    guestbook.stop()


class TestSpans:
    def test_calls_and_commands_follow_the_conventions(
        self, visit: Visit, redis: RedisServer
    ) -> None:
        calls = [span for span in visit.spans if span["kind"] == CLIENT]
        assert {span["name"] for span in calls} == {
            "GET /hello/{name}",
            "GET /api/messages",
            "POST /api/messages",
            *("PING", "GETEX", "SET", "DEL"),
        }
        for span in calls:
            found = attributes(span)
            assert found["server.address"] == "127.0.0.1"
            port = int(found["server.port"])
            if "http.request.method" in found:
                method, template = span["name"].split(" ")
                backend = visit.message if template.startswith("/hello") else visit.guestbook
                assert (found["http.request.method"], found["url.template"]) == (method, template)
                path = template.replace("{name}", "Ada")
                assert found["url.full"].startswith(backend.url + path)
                assert port == backend.port
            else:
                assert found["db.system.name"] == "redis"
                assert found["db.operation.name"] == span["name"]
                assert port == redis.port

    def test_they_are_children_of_the_page(self, visit: Visit) -> None:
        (page,) = (span for span in visit.spans if span.get("parentSpanId") == SPAN)
        assert (page["name"], page["kind"], page["traceId"]) == ("GET /", SERVER, TRACE)
        assert attributes(page)["http.route"] == "/"
        children = [span for span in visit.spans if span.get("parentSpanId") == page["spanId"]]
        assert sorted(span["name"] for span in children) == [
            "GET /api/messages",
            "GET /hello/{name}",
            "GETEX",
        ]
        assert {span["traceId"] for span in children} == {TRACE}
        sent = [
            seen for seen in (*visit.message.seen, *visit.guestbook.seen) if seen.method == "GET"
        ]
        headers = [seen.headers for seen in sent if TRACE in seen.headers["traceparent"]]
        assert len(headers) == 2
        spans = {span["spanId"] for span in children if span["name"] != "GETEX"}
        assert {each["traceparent"] for each in headers} == {f"00-{TRACE}-{s}-01" for s in spans}
        assert {each["x-b3-spanid"] for each in headers} == spans
        assert {each["x-b3-traceid"] for each in headers} == {TRACE}

    def test_failures_are_errors_with_a_type(self, visit: Visit) -> None:
        seen = {
            (
                span["name"],
                attributes(span).get("http.response.status_code"),
                attributes(span).get("error.type"),
                span.get("status", {}).get("code", 0) == ERROR,
            )
            for span in visit.spans
            if "http.request.method" in attributes(span) and span["kind"] == CLIENT
        }
        numbered = {(name, int(status or 0), kind, failed) for name, status, kind, failed in seen}
        assert numbered == {
            ("GET /hello/{name}", 200, None, False),
            ("GET /hello/{name}", 503, "503", True),
            ("GET /hello/{name}", 0, "unreachable", True),
            ("GET /api/messages", 200, None, False),
            ("GET /api/messages", 0, "timeout", True),
            ("POST /api/messages", 201, None, False),
        }

    def test_a_command_that_fails_is_an_error(
        self,
        start_ui: StartUi,
        environ: dict[str, str],
        collected: Collector,
        message: Backend,
        guestbook: Backend,
    ) -> None:
        settings = {**environ, "REDIS_PORT": "1", "OTEL_EXPORTER_OTLP_ENDPOINT": collected.url}
        ui = start_ui(**settings)
        httpx.get(ui.url, trust_env=False)
        ui.stop()
        failed = [span for span in collected.otlp if span["name"] == "PING"]
        assert failed
        for span in failed:
            assert attributes(span)["error.type"] == "unreachable"
            assert span["status"]["code"] == ERROR

    def test_a_header_that_is_no_text_breaks_no_trace(
        self,
        start_ui: StartUi,
        environ: dict[str, str],
        collected: Collector,
        message: Backend,
        guestbook: Backend,
    ) -> None:
        ui = start_ui(**environ, OTEL_EXPORTER_OTLP_ENDPOINT=collected.url)
        with ui.browser() as browser:
            browser.post("/greet", data={"name": "Ada"})
            for name in CLEAN:
                headers = [(name.encode(), "v=é".encode()), (b"traceparent", PARENT.encode())]
                assert browser.get("/", headers=headers).status_code == 200
                assert guestbook.seen[-1].headers["traceparent"].startswith("00-")
                assert guestbook.seen[-1].headers.get("tracestate", "").isascii()
        ui.stop()

    def test_zipkin_is_told_what_was_called(
        self,
        start_ui: StartUi,
        environ: dict[str, str],
        collected: Collector,
        message: Backend,
        guestbook: Backend,
        redis: RedisServer,
    ) -> None:
        ui = start_ui(**environ, ZIPKIN_ENDPOINT=f"{collected.url}/api/v2/spans")
        with ui.browser() as browser:
            browser.post("/greet", data={"name": "Ada", "message": "x"})
            browser.get("/")
        ui.stop()
        remote = {
            (span["name"], span["remoteEndpoint"]["serviceName"], span["remoteEndpoint"]["port"])
            for span in collected.zipkin
            if span["kind"] == "CLIENT"
        }
        assert remote == {
            ("GET /hello/{name}", "message-service", message.port),
            ("GET /api/messages", "guestbook-service", guestbook.port),
            ("POST /api/messages", "guestbook-service", guestbook.port),
            ("SET", "redis", redis.port),
            ("GETEX", "redis", redis.port),
        }


class TestMetrics:
    @pytest.mark.parametrize(
        ("method", "path", "route", "status"),
        [
            ("GET", "/", "/", 200),
            ("GET", "/?page=2", "/", 200),
            ("HEAD", "/", "/", 200),
            ("GET", "/?page=0", "/", 400),
            ("POST", "/greet", "/greet", 303),
            ("GET", "/greet", "/greet", 303),
            ("POST", "/greet/", "/greet", 303),
            ("POST", "/logout", "/logout", 303),
            ("GET", "/static/style.css", "/static/{path}", 200),
            ("GET", "/static/nowhere.css", "/static/{path}", 404),
            ("GET", "/nowhere", "unmatched", 404),
        ],
    )
    def test_requests_are_counted_by_route_template(
        self, ui: Ui, method: str, path: str, route: str, status: int
    ) -> None:
        def counted() -> tuple[float, float]:
            return (
                ui.counted("http_requests_total", **labels),
                ui.counted("http_request_duration_seconds_count", **labels),
            )

        labels = {"method": method, "route": route, "status": str(status)}
        requests, durations = counted()
        form = {"name": "Ada"} if method == "POST" else None
        answer = httpx.request(method, ui.url + path, data=form, trust_env=False)
        assert answer.status_code == status
        wait(lambda: counted() == (requests + 1, durations + 1), f"{labels} to be counted")

    FAILURES = (
        (Answer(403, b"RBAC: access denied"), "refused"),
        (Answer(429), "error"),
        (Answer(503, b"fault filter abort"), "error"),
        (Answer(302), "error"),
        (HANG, "timeout"),
        (RESET, "unreachable"),
        (Answer(raw=b""), "unreachable"),
        (Answer(raw=b"220 mail.example ESMTP\r\n"), "unreadable"),
        (Answer(200, b"<html>"), "unreadable"),
        (as_json(["another", "shape"]), "unreadable"),
        (Answer(200, b"x" * 5_000_000), "unreadable"),
    )

    @pytest.mark.parametrize(("failure", "outcome"), FAILURES, ids=range(len(FAILURES)))
    def test_each_call_of_a_back_end_is_counted_by_its_outcome(
        self, impatient_ui: Ui, message: Backend, guestbook: Backend, failure: Answer, outcome: str
    ) -> None:
        ui = impatient_ui
        with ui.browser() as browser:
            browser.post("/greet", data={"name": "Ada"})
            start = [ui.calls(name) for name in BACKENDS]
            browser.get("/")
            healthy = [ui.calls(name) for name in BACKENDS]
            message.behaviour = guestbook.behaviour = lambda _: failure
            assert browser.get("/").status_code == 200
            failed = [ui.calls(name) for name in BACKENDS]
        assert [now - before for now, before in zip(healthy, start, strict=True)] == [{"ok": 1}] * 2
        made = [now - before for now, before in zip(failed, healthy, strict=True)]
        assert made == [{outcome: 1}] * 2

    @pytest.mark.parametrize(
        ("status", "outcome"), [(201, "ok"), (400, "refused"), (409, "refused"), (503, "error")]
    )
    def test_posts_are_counted_too(
        self, ui: Ui, guestbook: Backend, stored: Guestbook, status: int, outcome: str
    ) -> None:
        guestbook.behaviour = lambda seen: (
            Answer(status) if seen.method == "POST" and status != 201 else stored(seen)
        )
        before = ui.calls("guestbook-service")
        httpx.post(f"{ui.url}/greet", data={"name": "Ada", "message": "x"}, trust_env=False)
        made = ui.calls("guestbook-service") - before
        assert made.pop(outcome) == 1
        assert made in ({}, {"ok": 1})  # The page that came back asked for the messages.

    def test_a_back_end_that_is_not_there_is_unreachable(
        self, start_ui: StartUi, environ: dict[str, str], redis: RedisServer
    ) -> None:
        absent = {"MESSAGE_HOST": "http://message.invalid", "GUESTBOOK_HOST": "http://127.0.0.1:1"}
        ui = start_ui(**{**environ, **absent})
        with ui.browser() as browser:
            browser.post("/greet", data={"name": "Ada"})
            browser.get("/")
        assert [ui.calls(name) for name in BACKENDS] == [{"unreachable": 1}] * 2
        assert ui.calls("redis").keys() == {"ok"}
        ui.stop()
