"""The server: the application and its management port in one process, and their graceful end.

uvicorn closes its listeners as soon as it gets the signal, before a load balancer could notice that
the service is not ready any more. So the signal is handled here: the service says "not ready", goes
on serving for the drain, and only then uvicorn finishes the requests in flight.
"""

import asyncio
import contextlib
import gc
import logging
import resource
import signal
import socket
import sys
from collections.abc import Callable, Iterator, Sequence
from time import monotonic
from typing import Literal

import uvicorn
import uvloop
from starlette.types import ASGIApp

from services.common import logs, telemetry
from services.common.health import Check, Health, management_app
from services.common.protocol import LimitedProtocol
from services.common.settings import CommonSettings

KEEP_ALIVE = 3900
"""Seconds an idle connection is kept: longer than Envoy's pool keeps it (an hour), so that it is
never the server that closes a connection just as the proxy picks it for a request."""

TICK = 1.0
"""Seconds between two updates of the Date header and checks of the connections' time limits."""

logger = logging.getLogger(__name__)


def run(app: ASGIApp, *, settings: CommonSettings, checks: Sequence[Check] = ()) -> None:
    """Logs and serves until SIGTERM or SIGINT; returns when every request in flight is answered.

    SIGTERM drains first (see `SHUTDOWN_DRAIN`, `SHUTDOWN_GRACE`), SIGINT does not, and a second
    signal ends the wait. A port that cannot be bound ends the process with status 1 and one line.
    """
    logs.configure(settings)
    gc.freeze()
    gc.enable()
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))  # A connection takes a descriptor.
    uvloop.run(_serve(app, settings, Health(checks)))
    telemetry.shutdown()


async def _serve(app: ASGIApp, settings: CommonSettings, health: Health) -> None:
    listener = _bind(settings.host, settings.port, "PORT")
    management_listener = _bind(settings.host, settings.management_port, "MANAGEMENT_PORT")
    stop, hurry = asyncio.Event(), asyncio.Event()

    def started() -> None:
        health.serving = True
        name = f"{settings.otel_service_name} {settings.demo_version}"
        urls = (_url(listener), _url(management_listener))
        logger.info("%s is ready on %s, management on %s", name, *urls)

    def on_signal(number: signal.Signals) -> None:
        if stop.is_set():
            server.force_exit = True
        if stop.is_set() or number is signal.SIGINT:
            hurry.set()
        stop.set()

    server = _Server(app, "on", started)
    management = _Server(management_app(settings, health), "off", lambda: None)
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, on_signal, number)

    managing = asyncio.create_task(management.serve([management_listener]))
    serving = asyncio.create_task(server.serve([listener]))
    stopping = asyncio.create_task(stop.wait())
    await asyncio.wait((serving, stopping), return_when=asyncio.FIRST_COMPLETED)

    deadline = monotonic() + settings.shutdown_grace
    if health.serving and not serving.done():
        logger.info("Stopping: not ready any more, finishing what is in flight")
        health.serving = False
        await server.close_after_answers()
        with contextlib.suppress(TimeoutError):
            drain = min(settings.shutdown_drain, settings.shutdown_grace)
            await asyncio.wait_for(hurry.wait(), drain)
    server.config.timeout_graceful_shutdown = max(0, deadline - monotonic())  # type: ignore[assignment]
    server.end()
    await serving
    management.end()
    await managing
    logger.info("Stopped")


class _Server(uvicorn.Server):
    def __init__(
        self, app: ASGIApp, lifespan: Literal["on", "off"], started: Callable[[], None]
    ) -> None:
        config = uvicorn.Config(
            app,
            http=LimitedProtocol,
            ws="none",
            lifespan=lifespan,
            interface="asgi3",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            timeout_keep_alive=KEEP_ALIVE,
        )
        super().__init__(config)
        self._started = started
        self._ending = asyncio.Event()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield  # Signals concern both servers; `_serve` handles them.

    async def main_loop(self) -> None:
        """Waits for the end; uvicorn's own looks ten times a second for `should_exit`."""
        self._ticker = asyncio.create_task(self._tick())
        self._started()
        await self._ending.wait()

    async def _tick(self) -> None:
        while True:
            await self.on_tick(0)  # Updates the Date header.
            now = asyncio.get_running_loop().time()
            for connection in list(self.server_state.connections):
                if isinstance(connection, LimitedProtocol):
                    connection.check_time(now)
            await asyncio.sleep(TICK)

    async def close_after_answers(self) -> None:
        """Ends each connection with its next answer, so that clients connect elsewhere."""
        self.config.encoded_headers.append((b"connection", b"close"))
        await self.on_tick(0)  # Makes it a default header, like the date.

    def end(self) -> None:
        self.should_exit = True
        self._ending.set()


def _bind(host: str, port: int, name: str) -> socket.socket:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
    except OSError as error:
        reason = error.strerror or error
        print(f"error: {name}={port} cannot be used on HOST={host}: {reason}", file=sys.stderr)  # noqa: T201
        sys.exit(1)
    return listener


def _url(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
