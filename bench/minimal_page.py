"""The reference: the least that can be called the page, on aiohttp alone.

The same three calls as the ui: the name out of Redis, then a greeting and twenty messages at the
same time. No form checks, no error handling, no headers, no metrics, no log.
"""

from __future__ import annotations

import asyncio
import contextlib
import html
import json
import os
from typing import Any

import uvloop
from aiohttp import ClientSession, web
from redis.asyncio import Redis

MESSAGES = os.environ["GUESTBOOK_HOST"] + "/api/messages?page=0&size=20&sort=id,desc"
HELLO = os.environ["MESSAGE_HOST"] + "/hello/"


async def serve() -> None:
    redis = Redis(port=int(os.environ["REDIS_PORT"]), decode_responses=True)
    async with ClientSession() as session, redis:

        async def get(url: str) -> Any:
            async with session.get(url) as answer:
                return json.loads(await answer.read())

        async def page(request: web.Request) -> web.Response:
            name = str(await redis.getex("session:" + request.cookies["SESSION"], ex=1800))
            greeting, messages = await asyncio.gather(get(HELLO + name), get(MESSAGES))
            items = "".join(
                f"<li><b>{html.escape(each['username'])}</b> {html.escape(each['timestamp'])} "
                f"{html.escape(each['message'])}</li>"
                for each in messages["_embedded"]["messages"]
            )
            body = (
                f"<!doctype html><title>Guestbook</title><p>{html.escape(greeting['greeting'])}</p>"
                f"<form method=post action=/greet><input name=name value='{html.escape(name)}'>"
                f"<input name=message><button>Greet</button></form><ul>{items}</ul>"
            )
            return web.Response(text=body, content_type="text/html")

        app = web.Application()
        app.router.add_get("/", page)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        host, port = runner.addresses[0][:2]
        address = f"http://{host}:{port}"
        print(f"minimal page is ready on {address}, management on {address}", flush=True)
        try:
            await asyncio.Event().wait()
        finally:
            await runner.cleanup()


def main() -> None:
    with contextlib.suppress(KeyboardInterrupt):
        uvloop.run(serve())


if __name__ == "__main__":
    main()
