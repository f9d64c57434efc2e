"""The application of the management port: health, metrics, build information."""

from __future__ import annotations

import platform

from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from services.common.errors import problem
from services.common.health import Health
from services.common.settings import CommonSettings


def management_app(settings: CommonSettings, health: Health) -> Starlette:
    """Returns the application for Kubernetes' probes, Prometheus and operators."""

    async def aggregate(_: Request) -> Response:
        return _json(*await health.aggregate())

    async def readiness(_: Request) -> Response:
        return _json(*await health.readiness())

    async def liveness(_: Request) -> Response:
        return _json(*health.liveness())

    async def info(_: Request) -> Response:
        return JSONResponse(
            {
                "service": settings.otel_service_name,
                "version": settings.demo_version,
                "hostname": settings.hostname,
                "python": platform.python_version(),
            }
        )

    async def metrics(_: Request) -> Response:
        return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)

    async def not_found(request: Request, _: Exception) -> Response:
        return problem(404, f"GET {request.url.path}: not found; there are {', '.join(paths)}")

    routes = [
        Route("/actuator/health", aggregate),
        Route("/actuator/health/liveness", liveness),
        Route("/actuator/health/readiness", readiness),
        Route("/actuator/info", info),
        Route("/metrics", metrics),
    ]
    paths = [route.path for route in routes]
    return Starlette(routes=routes, exception_handlers={404: not_found})


def _json(status: int, body: dict[str, object]) -> Response:
    return JSONResponse(body, status, headers={"cache-control": "no-store"})
