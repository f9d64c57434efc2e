"""A small service on services.common, for what the real ones do not show by themselves."""

from __future__ import annotations

import asyncio
import logging
import sys
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from pydantic import Field
from starlette.responses import Response, StreamingResponse

from services.common.api import api
from services.common.app import instrument
from services.common.health import Check
from services.common.server import run
from services.common.settings import CommonSettings, Port, load
from services.common.telemetry import client_span, outgoing_headers


class Settings(CommonSettings):
    otel_service_name: str = Field("sample", description="Name in spans.")
    redis_port: Port = Field(6379, description="Port of Redis.")
    down_file: str = Field("/nonexistent", description="The dependency is down while this exists.")
    hang_file: str = Field("/nonexistent", description="The dependency hangs while this exists.")


def create_app(settings: Settings) -> FastAPI:
    app = api("sample", settings)

    @app.get("/outgoing")
    async def outgoing() -> dict[str, str]:
        with client_span("GET elsewhere", {"http.request.method": "GET"}):
            return outgoing_headers()

    @app.get("/outgoing/thread")
    def outgoing_thread() -> dict[str, str]:
        return outgoing_headers()

    @app.get("/modules")
    async def modules() -> list[str]:
        return sorted(sys.modules)

    @app.get("/settings")
    async def show() -> dict[str, Any]:
        return settings.model_dump()

    @app.get("/slow/{seconds}")
    async def slow(seconds: float) -> str:
        logging.getLogger("sample").info("sleeping")
        await asyncio.sleep(seconds)
        return "done"

    @app.get("/stream")
    async def stream() -> Response:
        async def parts() -> Any:
            for part in range(3):
                yield f"part {part}\n"

        return StreamingResponse(parts(), media_type="text/plain")

    @app.get("/crash")
    async def crash(reason: str = "the secret reason") -> None:
        raise RuntimeError(reason)

    @app.post("/items/{item}")
    async def post_item(item: int, body: dict[str, int]) -> dict[str, int]:
        return {"item": item, **body}

    @app.get("/items/{item}")
    async def get_item(item: int) -> dict[str, int]:
        return {"item": item}

    return app


def main() -> None:
    settings = load(Settings)

    async def probe() -> None:
        if Path(settings.hang_file).exists():
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                logging.getLogger("sample").info("the probe was cancelled")
                raise
        if Path(settings.down_file).exists():
            raise ConnectionRefusedError("refused by the test")

    run(
        instrument(create_app(settings), settings, max_body=1000),
        settings=settings,
        checks=[Check("dependency", probe)],
    )


if __name__ == "__main__":
    main()
