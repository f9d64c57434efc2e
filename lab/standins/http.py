"""HTTP for stand-ins: a server in a thread, and bodies of a limited size."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator

import uvicorn
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.types import ASGIApp


async def read_body(request: Request, limit: int) -> bytes:
    """Returns the body of a request; more than `limit` bytes are answered 413."""
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > limit:
            raise HTTPException(413, "The body is too large")
    return body


@contextlib.contextmanager
def serving(app: ASGIApp, host: str, port: int) -> Iterator[None]:
    """Serves an application while the block runs. Raises OSError when the port is taken."""
    with socket.create_server((host, port)) as listener:
        config = uvicorn.Config(app, log_config=None, access_log=False, lifespan="off")
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            yield
        finally:
            server.should_exit = True
            thread.join()
