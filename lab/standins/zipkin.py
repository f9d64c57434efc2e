"""`python -m lab.standins.zipkin`: plays Zipkin, as far as the exercises need it.

Spans come in as Zipkin v2 JSON (`POST /api/v2/spans`) from the proxies and the services. Out go the
API's services, spans and traces, and pages for people: the latest traces, and each as a timeline.
Listens on $HOST.
"""

from __future__ import annotations

import os
import zlib
from datetime import UTC, datetime
from typing import Annotated

import uvicorn
from fastapi import FastAPI, HTTPException, Query, Request, Response
from fastapi.responses import HTMLResponse, JSONResponse, RedirectResponse
from pydantic import TypeAdapter, ValidationError

from lab.standins import zipkin_pages as pages
from lab.standins.http import read_body
from lab.standins.zipkin_store import MAX_TRACES, Span, Store

PORT = 9411
MAX_BODY = 4 << 20
DAY_MS = 86_400_000

_SPANS = TypeAdapter(list[Span])


def create_app(store: Store) -> FastAPI:
    """Returns the API and the pages over a store."""
    app = FastAPI(title="Zipkin stand-in", docs_url=None, redoc_url=None, openapi_url=None)

    @app.post("/api/v2/spans", status_code=202)
    async def spans(request: Request) -> Response:
        body = await _unpacked(request)
        try:
            store.add(_SPANS.validate_json(body))
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(str(part) for part in first["loc"])
            raise HTTPException(400, f"Cannot read the spans: {place}: {first['msg']}") from None
        return Response(status_code=202)

    @app.get("/api/v2/services")
    async def services() -> list[str]:
        return store.services()

    @app.get("/api/v2/spans")
    async def span_names(service: Annotated[str, Query(alias="serviceName")] = "") -> list[str]:
        return store.span_names(service)

    @app.get("/api/v2/traces")
    async def traces(
        service: Annotated[str, Query(alias="serviceName")] = "",
        name: Annotated[str, Query(alias="spanName")] = "",
        limit: Annotated[int, Query(ge=1, le=MAX_TRACES)] = 10,
        end: Annotated[int | None, Query(alias="endTs")] = None,
        lookback: int = DAY_MS,
    ) -> JSONResponse:
        now = int(datetime.now(UTC).timestamp() * 1000)
        since = ((end or now) - lookback) * 1000
        wanted = "" if name == "all" else name
        found = store.find(service=service, name=wanted, limit=limit, since=since)
        return JSONResponse([[span.as_json() for span in spans] for spans in found])

    @app.get("/api/v2/trace/{trace_id}")
    async def trace(trace_id: str) -> JSONResponse:
        found = store.trace(trace_id)
        if not found:
            raise HTTPException(404, f"{trace_id} not found")
        return JSONResponse([span.as_json() for span in found])

    @app.get("/health")
    async def health() -> dict[str, str]:
        return {"status": "UP"}

    @app.get("/")
    async def root() -> RedirectResponse:
        return RedirectResponse("/zipkin/")

    @app.get("/zipkin/")
    async def index(
        service: Annotated[str, Query(alias="serviceName")] = "",
    ) -> HTMLResponse:
        return HTMLResponse(pages.traces(store, service))

    @app.get("/zipkin/traces/{trace_id}")
    async def timeline(trace_id: str) -> HTMLResponse:
        found = store.trace(trace_id)
        return HTMLResponse(pages.trace(found), 200 if found else 404)

    return app


async def _unpacked(request: Request) -> bytes:
    body = await read_body(request, MAX_BODY)
    if request.headers.get("content-encoding") != "gzip":
        return body
    unpacker = zlib.decompressobj(wbits=31)
    try:
        unpacked = unpacker.decompress(body, MAX_BODY)
    except zlib.error:
        raise HTTPException(400, "The body is not gzip") from None
    if unpacker.unconsumed_tail:
        raise HTTPException(413, "The body is too large")
    return unpacked


def main() -> None:
    """Serves until SIGTERM."""
    host = os.environ.get("HOST", "0.0.0.0")
    uvicorn.run(create_app(Store()), host=host, port=PORT, log_level="warning", access_log=False)


if __name__ == "__main__":
    main()
