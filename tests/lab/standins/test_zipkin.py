"""The Zipkin stand-in: its API, its pages, and spans of real proxies of one request."""

from __future__ import annotations

import gzip
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn

from lab.model import ServicePort
from lab.standins.zipkin import create_app
from lab.standins.zipkin_store import Span, Store
from tests.support import harness
from tests.support.wait import wait

T0 = 1_795_000_000_000_000


def span(number: int, parent: int = 0, trace: int = 1, **more: Any) -> dict[str, Any]:
    return {
        "traceId": f"{trace:032x}",
        "id": f"{number:016x}",
        **({"parentId": f"{parent:016x}"} if parent else {}),
        "name": f"op{number}",
        "timestamp": T0 + number * 1000,
        "duration": 5000,
        "localEndpoint": {"serviceName": "ui.default"},
        **more,
    }


@pytest.fixture
def client() -> Iterator[httpx.Client]:
    config = uvicorn.Config(create_app(Store()), port=0, log_level="warning", lifespan="off")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    wait(lambda: server.started)
    port = server.servers[0].sockets[0].getsockname()[1]
    with httpx.Client(base_url=f"http://127.0.0.1:{port}") as made:
        yield made
    server.should_exit = True
    thread.join()


ANY_TIME = {"endTs": str(T0 // 1000 + 10_000), "lookback": "20000"}


def test_what_comes_in_goes_out(client: httpx.Client) -> None:
    other = span(3, trace=2, localEndpoint={"serviceName": "Message.default"})
    assert client.post("/api/v2/spans", json=[span(1), span(2, 1), other]).status_code == 202
    assert client.get("/api/v2/services").json() == ["message.default", "ui.default"]
    assert client.get("/api/v2/spans", params={"serviceName": "ui.default"}).json() == [
        "op1",
        "op2",
    ]
    assert client.get(f"/api/v2/trace/{1:032x}").json() == [span(1), span(2, 1)]
    assert len(client.get(f"/api/v2/trace/{1:016x}").json()) == 2, "a 64-bit id is the same trace"
    traces = client.get("/api/v2/traces", params=ANY_TIME).json()
    assert [len(trace) for trace in traces] == [1, 2], "the latest first"
    mine = client.get("/api/v2/traces", params={**ANY_TIME, "serviceName": "UI.default"}).json()
    assert mine == [[span(1), span(2, 1)]]
    assert client.get("/api/v2/traces").json() == [], "older than the usual look back"


def test_gzip_is_taken(client: httpx.Client) -> None:
    packed = gzip.compress(str([span(1)]).replace("'", '"').encode())
    headers = {"content-encoding": "gzip"}
    assert client.post("/api/v2/spans", content=packed, headers=headers).status_code == 202
    assert client.post("/api/v2/spans", content=b"no", headers=headers).status_code == 400
    bomb = gzip.compress(b" " * (5 << 20))
    assert client.post("/api/v2/spans", content=bomb, headers=headers).status_code == 413


def test_nonsense_is_refused(client: httpx.Client) -> None:
    for body in ("no json", "{}", '[{"traceId": "zz", "id": "1"}]', '[{"id": "1"}]'):
        answer = client.post("/api/v2/spans", content=body)
        assert answer.status_code == 400, body
        assert "Cannot read the spans" in answer.text
    assert client.post("/api/v2/spans", content=b"[" + b" " * (5 << 20)).status_code == 413
    assert client.get("/api/v2/trace/77").status_code == 404


def test_the_timeline_shows_the_order_and_escapes(client: httpx.Client) -> None:
    bad = span(2, 1, name="<script>alert(1)</script>", tags={"error": "<b>", "http.method": "GET"})
    client.post("/api/v2/spans", json=[span(3, 2), bad, span(1), span(9, 77)])
    page = client.get(f"/zipkin/traces/{1:032x}").text
    assert page.index("op1") < page.index("&lt;script&gt;") < page.index("op3") < page.index("op9")
    assert "<script>" not in page
    assert "<b>" not in page
    assert 'class="error"' in page
    assert f"/zipkin/traces/{1:032x}" in client.get("/zipkin/").text
    assert client.get("/zipkin/traces/5").status_code == 404


def test_spans_in_a_circle_and_very_deep_ones_are_shown(client: httpx.Client) -> None:
    client.post("/api/v2/spans", json=[span(1, 2), span(2, 1)])
    assert "op2" in client.get(f"/zipkin/traces/{1:032x}").text
    client.post("/api/v2/spans", json=[span(n, n - 1, trace=2) for n in range(1, 3000)])
    assert "op2999" in client.get(f"/zipkin/traces/{2:032x}").text


def test_the_oldest_are_dropped() -> None:
    store = Store(limit=2, span_limit=3)
    store.add(Span.model_validate(span(n, trace=n)) for n in (1, 2, 3))
    assert len(store.traces) == 2
    store.add(Span.model_validate(span(n, trace=4)) for n in (1, 2, 3))
    assert list(store.traces) == [f"{4:032x}"]


MANIFESTS = """
apiVersion: telemetry.istio.io/v1
kind: Telemetry
metadata: {name: mesh-default, namespace: istio-system}
spec:
  tracing:
  - providers: [{name: zipkin}]
    randomSamplingPercentage: 100
    customTags: {lab: {literal: {value: here}}, pod: {environment: {name: POD_NAME}}}
"""


def test_a_request_between_real_proxies_is_one_trace(tmp_path: Path) -> None:
    provider = {
        "name": "zipkin",
        "zipkin": {
            "service": "zipkin.istio-system.svc.cluster.local",
            "port": 9411,
            "traceContextOption": "USE_B3_WITH_W3C_PROPAGATION",
        },
    }
    with harness.mesh(tmp_path) as mesh:
        for name in ("ui", "message"):
            mesh.add(name, proxy="sidecar")
            mesh.service(name)
        zipkin = mesh.add("zipkin", namespace="istio-system", server=False, ports={"http": 9411})
        mesh.service(
            "zipkin",
            namespace="istio-system",
            ports=(ServicePort("http-query", 9411, 9411, "HTTP"),),
        )
        mesh.mesh_config = {**mesh.mesh_config, "extensionProviders": [provider]}
        mesh.config = harness.resources(MANIFESTS)
        with subprocess.Popen(
            [sys.executable, "-m", "lab.standins.zipkin"],
            env={**os.environ, "HOST": zipkin.pod.address},
        ) as server:
            try:
                api = f"http://{zipkin.pod.address}:9411"
                wait(lambda: serves(api))
                mesh.start()
                answer = mesh.request("ui", "http://message/hello/x")
                seen = answer.json()["headers"]
                trace = seen["x-b3-traceid"]
                assert seen["traceparent"].split("-")[1] == trace
                wait(lambda: len(spans(api, trace)) == 2)
                client, serving = sorted(spans(api, trace), key=lambda one: str(one["kind"]))
                services = [one["localEndpoint"]["serviceName"] for one in (client, serving)]
                assert services == ["ui.default", "message.default"]
                assert (client["kind"], serving["kind"]) == ("CLIENT", "SERVER")
                assert serving["parentId"] == client["id"]
                assert serving["name"] == "message.default.svc.cluster.local:80/*"
                assert serving["tags"]["lab"] == "here"
                assert serving["tags"]["pod"] == "message"
                assert serving["tags"]["istio.canonical_service"] == "message"
            finally:
                server.terminate()


def serves(api: str) -> bool:
    try:
        return httpx.get(f"{api}/health").status_code == 200
    except httpx.HTTPError:
        return False


def spans(api: str, trace: str) -> list[dict[str, Any]]:
    answer = httpx.get(f"{api}/api/v2/trace/{trace}")
    found: list[dict[str, Any]] = answer.json() if answer.status_code == 200 else []
    return found
