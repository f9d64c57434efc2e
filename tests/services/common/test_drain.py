"""Stopping loses nothing: real processes, real signals."""

from __future__ import annotations

import signal
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPException

import httpx

from tests.support.service import Service, StartService
from tests.support.wait import wait
from tests.support.wire import exchange, request

SAMPLE = "tests.services.common.sample"


def readiness(service: Service) -> int:
    return httpx.get(f"{service.management}/actuator/health/readiness").status_code


def test_a_request_in_flight_at_sigterm_is_answered(start_service: StartService) -> None:
    service = start_service(SAMPLE, SHUTDOWN_DRAIN=0.1)
    with ThreadPoolExecutor() as pool:
        pending = pool.submit(httpx.get, f"{service.url}/slow/2")
        service.wait_for_line("sleeping")
        service.signal(signal.SIGTERM)
        answer = pending.result()
    assert (answer.status_code, answer.json()) == (200, "done")
    assert service.wait() == 0
    assert service.lines[-1] == "Stopped"


def test_not_ready_first_while_new_connections_are_served(start_service: StartService) -> None:
    service = start_service(SAMPLE, SHUTDOWN_DRAIN=2)
    assert readiness(service) == 200
    failures: list[str] = []
    answered = 0
    stop = threading.Event()

    def connect_every_50_ms() -> None:
        nonlocal answered
        while not stop.is_set():
            try:
                answer = exchange(service.url, request("GET", "/items/1"))
                answered += answer.status == 200
                if answer.status != 200:
                    failures.append(f"status {answer.status}")
            except (OSError, HTTPException) as error:
                failures.append(repr(error))
            stop.wait(0.05)

    client = threading.Thread(target=connect_every_50_ms)
    client.start()
    try:
        wait(lambda: answered, "the first answer")
        service.signal(signal.SIGTERM)
        wait(lambda: readiness(service) == 503, "readiness to say no", 1)
        before = answered
        # Like a load balancer, the client goes away some time after it was told.
        wait(lambda: answered > before + 10, "answers during the drain")
    finally:
        stop.set()
        client.join()
    assert failures == []
    liveness = httpx.get(f"{service.management}/actuator/health/liveness")
    assert liveness.status_code == 200
    assert service.wait() == 0


def test_a_kept_connection_is_closed_by_the_answer_not_under_it(
    start_service: StartService,
) -> None:
    service = start_service(SAMPLE, SHUTDOWN_DRAIN=10)
    with httpx.Client(base_url=service.url) as client:
        assert "connection" not in client.get("/items/1").headers
        service.signal(signal.SIGTERM)
        wait(lambda: readiness(service) == 503, "readiness to say no")
        assert client.get("/items/1").headers["connection"] == "close"
        assert client.get("/items/1").status_code == 200  # On a new connection.
    service.signal(signal.SIGTERM)  # Enough of the drain.
    assert service.wait(5) == 0


def test_ctrl_c_does_not_drain_but_finishes(start_service: StartService) -> None:
    service = start_service(SAMPLE, SHUTDOWN_DRAIN=60, SHUTDOWN_GRACE=60)
    with ThreadPoolExecutor() as pool:
        pending = pool.submit(httpx.get, f"{service.url}/slow/1")
        service.wait_for_line("sleeping")
        service.signal(signal.SIGINT)
        assert pending.result().status_code == 200
    assert service.wait(20) == 0


def test_the_grace_bounds_the_wait(start_service: StartService) -> None:
    service = start_service(SAMPLE, SHUTDOWN_DRAIN=0, SHUTDOWN_GRACE=1)
    with ThreadPoolExecutor() as pool:
        pending = pool.submit(httpx.get, f"{service.url}/slow/60", timeout=30)
        service.wait_for_line("sleeping")
        service.signal(signal.SIGTERM)
        assert service.wait(20) == 0
        answer = pending.result()
    assert (answer.status_code, answer.json()["status"]) == (503, 503)
    assert "Traceback" not in service.text


def test_a_dead_collector_holds_up_neither_requests_nor_the_end(
    start_service: StartService,
) -> None:
    with socket.socket() as listener:  # Takes connections and never answers.
        listener.bind(("127.0.0.1", 0))
        listener.listen(100)
        port = listener.getsockname()[1]
        service = start_service(
            SAMPLE,
            OTEL_EXPORTER_OTLP_ENDPOINT=f"http://127.0.0.1:{port}",
            ZIPKIN_ENDPOINT="http://127.0.0.1:9/api/v2/spans",
        )
        for _ in range(20):
            assert httpx.get(f"{service.url}/items/1", timeout=2).status_code == 200
        service.wait_for_line("cannot export spans to http://127.0.0.1:9")
        started = time.monotonic()
        service.stop()
        assert time.monotonic() - started < 10
    assert "Traceback" not in service.text
    warnings = [line for line in service.lines if line.startswith(("WARNING", "ERROR"))]
    assert len(warnings) <= 2  # One for each collector.
