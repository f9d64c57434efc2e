"""The lab's API: JSON over HTTP on a Unix socket in the state folder.

The command line is its only client. A request that can't be done is answered 409 (404 when the
object isn't there) with `{"errors": [...]}`.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from lab.cluster import api, logs
from lab.cluster.api import RefusedError
from lab.cluster.cluster import Cluster
from lab.cluster.exec import exec_command, forward_target
from lab.manifests.load import ManifestError

SETTLE = 5.0
"""Seconds an answer waits for the proxies to take a change."""

Json = dict[str, Any]
Handler = Callable[[Cluster, Json], Awaitable[Any]]


def application(
    cluster: Cluster, status: Callable[[], Json], stop: Callable[[], None]
) -> Starlette:
    """The API of one lab."""

    async def get_status(_cluster: Cluster, _body: Json) -> Any:
        return status()

    async def down(_cluster: Cluster, _body: Json) -> Any:
        stop()
        return {}

    handlers: dict[str, Handler] = {
        "status": get_status,
        "down": down,
        "apply": _apply,
        "objects": _objects,
        "delete": _delete,
        "change": _change,
        "scale": _scale,
        "restart": _restart,
        "exec": _exec,
        "forward": _forward,
        "events": _events,
    }

    async def call(request: Request) -> Response:
        handler = handlers.get(request.path_params["name"])
        if handler is None:
            return JSONResponse({"errors": ["no such operation"]}, 404)
        body = await request.json() if int(request.headers.get("content-length", 0)) else {}
        try:
            return JSONResponse(await handler(cluster, body))
        except ManifestError as error:
            return JSONResponse({"errors": list(error.lines)}, 409)
        except RefusedError as error:
            return JSONResponse({"errors": [str(error)]}, 404 if error.missing else 409)
        except Exception as error:
            cluster.defect(f"answer {request.path_params['name']}", error)
            return JSONResponse({"errors": [cluster.problem]}, 500)

    async def stream(request: Request) -> Response:
        return await _logs(cluster, await request.json())

    return Starlette(
        routes=[
            Route("/logs", stream, methods=["POST"]),
            Route("/{name}", call, methods=["POST"]),
        ]
    )


async def _apply(cluster: Cluster, body: Json) -> Any:
    files = [(name, text) for name, text in body["files"]]
    done = api.apply(
        cluster,
        files,
        body.get("namespace"),
        create=body.get("create", False),
        dry_run=body.get("dry_run", False),
    )
    rejected = await _settled(cluster)
    # Known only now: the keys are fetched with the push.
    keys = cluster.mesh.key_warnings(done.resources) if cluster.mesh is not None else []
    return {"results": done.results, "warnings": [*done.warnings, *keys], "rejected": rejected}


async def _settled(cluster: Cluster) -> list[str]:
    """Wait until the proxies have what was just changed; what they refused of it."""
    await cluster.settled(cluster.revision, SETTLE)
    return cluster.rejected


async def _objects(cluster: Cluster, body: Json) -> Any:
    if "after" in body:
        await cluster.wait_for_change(body["after"], body.get("timeout", 10))
    answer = {
        "revision": cluster.revision,
        "items": api.objects(
            cluster,
            body["kinds"],
            body.get("namespace"),
            body.get("names", ()),
            body.get("selector", ""),
        ),
    }
    if body.get("in_effect"):
        # Whoever waits for pods that are ready means to send them requests.
        await _settled(cluster)
    return answer


async def _delete(cluster: Cluster, body: Json) -> Any:
    deleted = await api.delete(
        cluster,
        body["kind"],
        body["namespace"],
        body.get("names", ()),
        body.get("selector", ""),
        wait=body.get("wait", True),
        grace=body.get("grace"),
    )
    await _settled(cluster)
    return deleted


async def _change(cluster: Cluster, body: Json) -> Any:
    return api.change(
        cluster,
        body["field"],
        body["kind"],
        body["namespace"],
        body.get("names", ()),
        body["values"],
        labels=body.get("selector", ""),
        overwrite=body.get("overwrite", False),
    )


async def _scale(cluster: Cluster, body: Json) -> Any:
    api.scale(cluster, body["kind"], body["namespace"], body["name"], body["replicas"])
    return {}


async def _restart(cluster: Cluster, body: Json) -> Any:
    api.restart(cluster, body["kind"], body["namespace"], body["name"])
    return {}


async def _exec(cluster: Cluster, body: Json) -> Any:
    return exec_command(
        cluster, body["namespace"], body["pod"], body.get("container"), body["argv"]
    )


async def _forward(cluster: Cluster, body: Json) -> Any:
    return forward_target(cluster, body["kind"], body["namespace"], body["name"], body["port"])


async def _events(cluster: Cluster, body: Json) -> Any:
    found = cluster.events.about(body.get("kind"), body.get("namespace"), body.get("name"))
    names = ("kind", "namespace", "name", "type", "reason", "message", "count", "first", "last")
    return [{name: getattr(event, name) for name in names} for event in found]


async def _logs(cluster: Cluster, body: Json) -> Response:
    runner = cluster.runners.get((body["namespace"], body["pod"]))
    if runner is None:
        return JSONResponse({"errors": [f'pods "{body["pod"]}" not found']}, 404)
    names = runner.containers()
    name = body.get("container") or names[0]
    if name not in names:
        known = ", ".join(names)
        reason = f"container {name} is not valid for pod {body['pod']}; it has: {known}"
        return JSONResponse({"errors": [reason]}, 409)
    path = runner.log(name)
    since = body.get("since")
    stamps = body.get("timestamps", False)

    def text(line: bytes) -> bytes:
        return (line if stamps else line.partition(b" ")[2]) + b"\n"

    window = None if since is None else timedelta(seconds=since)
    if not body.get("follow"):
        return PlainTextResponse(
            b"".join(text(line) for line in logs.lines(path, body.get("tail"), window))
        )

    async def follow() -> AsyncIterator[bytes]:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        lines = logs.follow(path)
        for line in logs.lines(path, body.get("tail"), window):
            yield text(line)
        async for line in lines:
            yield text(line)

    return StreamingResponse(follow(), media_type="text/plain")


class Server(uvicorn.Server):
    """uvicorn inside a program that has its own signal handlers."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def bind(path: Path) -> socket.socket:
    """The control socket; only its owner may use it. Works in folders with long names."""
    path.unlink(missing_ok=True)
    server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    handle = os.open(path.parent, os.O_RDONLY)
    try:
        short = f"/proc/self/fd/{handle}/{path.name}"
        server.bind(short if Path("/proc/self/fd").is_dir() else str(path))
    finally:
        os.close(handle)
    path.chmod(0o600)
    server.listen(128)
    return server


async def serve(app: Starlette, server: socket.socket) -> None:
    """Answer requests until cancelled."""
    config = uvicorn.Config(app, log_config=None, access_log=False, lifespan="off")
    running = Server(config)
    task = asyncio.create_task(running.serve(sockets=[server]))
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        running.should_exit = True
        running.force_exit = True
        await task
        raise
