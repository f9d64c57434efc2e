"""The management port: probes in the shape of Spring Boot's Actuator, metrics, information.

Readiness asks the dependencies. Liveness never does: a restart cures no database.
"""

import asyncio
import platform
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from time import monotonic

from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from services.common.errors import problem
from services.common.metrics import build_info
from services.common.settings import CommonSettings

MAX_AGE = 1.0
"""Seconds an outcome is reused, so that probes cannot load a dependency."""

UP, DOWN, OUT_OF_SERVICE = "UP", "DOWN", "OUT_OF_SERVICE"


@dataclass(frozen=True, slots=True)
class Check:
    """A dependency of the service."""

    name: str
    probe: Callable[[], Awaitable[None]]
    """Raises when the dependency is down."""
    timeout: float = 0.8
    """Seconds after which no answer means down; below the second a Kubernetes probe waits."""


class Health:
    """The state of the service and of its dependencies."""

    def __init__(self, checks: Sequence[Check]) -> None:
        self.serving = False
        """Whether the service has started and is not about to stop."""
        self._checks = checks
        self._probes: dict[str, tuple[float, asyncio.Task[str | None]]] = {}
        """By name of the check, the last probe and its start on the monotonic clock."""

    async def aggregate(self, _: Request) -> Response:
        """Answers 200 when requests are welcome, else 503, with the state of each dependency."""
        errors = await asyncio.gather(*map(self._error, self._checks))
        components = {
            check.name: {"status": UP} if error is None else {"status": DOWN, "error": error}
            for check, error in zip(self._checks, errors, strict=True)
        }
        status = OUT_OF_SERVICE if not self.serving else DOWN if any(errors) else UP
        return _answer(status, components=components)

    async def readiness(self, request: Request) -> Response:
        """Answers as `aggregate` does; asks no dependency when it is out of service anyway."""
        return await self.aggregate(request) if self.serving else _answer(OUT_OF_SERVICE)

    async def liveness(self, _: Request) -> Response:
        """Answers 200 always: a process that answers is alive."""
        return _answer(UP)

    async def _error(self, check: Check) -> str | None:
        """Returns why the dependency is down; None when it is up."""
        started, probe = self._probes.get(check.name, (0.0, None))
        if probe is None or monotonic() - started > MAX_AGE:
            probe = asyncio.create_task(_probe(check))
            self._probes[check.name] = monotonic(), probe
        return await asyncio.shield(probe)


def management_app(settings: CommonSettings, health: Health) -> Starlette:
    """Returns the application for Kubernetes' probes, Prometheus and operators."""
    identity = {
        "service": settings.otel_service_name,
        "version": settings.demo_version,
        "hostname": settings.hostname,
    }
    build_info.info(identity)

    async def info(_: Request) -> Response:
        return JSONResponse({**identity, "python": platform.python_version()})

    async def metrics(_: Request) -> Response:
        return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)

    async def not_found(request: Request, _: Exception) -> Response:
        return problem(404, f"GET {request.url.path}: not found; there are {', '.join(endpoints)}")

    endpoints = {
        "/actuator/health": health.aggregate,
        "/actuator/health/liveness": health.liveness,
        "/actuator/health/readiness": health.readiness,
        "/actuator/info": info,
        "/metrics": metrics,
    }
    routes = [Route(path, endpoint) for path, endpoint in endpoints.items()]
    return Starlette(routes=routes, exception_handlers={404: not_found})


def _answer(status: str, **further: object) -> Response:
    headers = {"cache-control": "no-store"}
    return JSONResponse({"status": status, **further}, 200 if status == UP else 503, headers)


async def _probe(check: Check) -> str | None:
    try:
        async with asyncio.timeout(check.timeout):
            await check.probe()
    except TimeoutError:
        return f"no answer within {check.timeout:g} s"
    except Exception as error:
        reason = str(error).partition("\n")[0]
        return f"{type(error).__name__}: {reason}"[:300]
    return None
