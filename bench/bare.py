"""The reference of the message service: a bare ASGI callable on the same server, the same bytes."""

from __future__ import annotations

import contextlib
import os
from typing import Any

import uvicorn

BODY = b'{"greeting":"Hello test from bench with 1.0","version":"1.0","hostname":"bench"}'
HEADERS = [(b"content-length", str(len(BODY)).encode()), (b"content-type", b"application/json")]


async def app(_scope: Any, _receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": HEADERS})
    await send({"type": "http.response.body", "body": BODY})


class Server(uvicorn.Server):
    async def startup(self, sockets: Any = None) -> None:
        await super().startup(sockets)
        host, port = self.servers[0].sockets[0].getsockname()
        address = f"http://{host}:{port}"
        print(f"bare is ready on {address}, management on {address}", flush=True)


def main() -> None:
    config = uvicorn.Config(
        app,
        host=os.environ["HOST"],
        port=0,
        loop="uvloop",
        http="httptools",
        interface="asgi3",
        lifespan="off",
        ws="none",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
    )
    with contextlib.suppress(KeyboardInterrupt):
        Server(config).run()


if __name__ == "__main__":
    main()
