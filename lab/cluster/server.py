"""The control socket: JSON over HTTP on a Unix socket in the state folder.

The command line is its only client: `POST /NAME` with the parameters of the operation NAME as a
JSON object. A request that can't be done is answered 409 (404 when an object doesn't exist), and
a defect of the lab 500, with `{"errors": [...]}`.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import json
import os
import socket
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from lab.cluster import api, derived, exec, logs
from lab.cluster.running import Cluster
from lab.manifests.read import ManifestError
from lab.observe.requests import WINDOW, as_json
from lab.observe.requests import Request as Observed

SETTLE = 5.0
"""Seconds an answer waits for the proxies to take a change."""

Json = dict[str, Any]


def application(
    cluster: Cluster, status: Callable[[], Json], stop: Callable[[], None]
) -> Starlette:
    """Returns the API of one lab."""
    operations: Mapping[str, Callable[..., Any]] = OPERATIONS | {
        "status": lambda _cluster: status(),
        "down": lambda _cluster: stop(),
    }

    async def call(request: Request) -> Response:
        name = request.path_params["name"]
        operation = operations.get(name)
        if operation is None:
            return _failed(404, "no such operation")
        try:
            answer = operation(cluster, **await request.json())
            if inspect.isawaitable(answer):
                answer = await answer
        except ManifestError as error:
            return _failed(409, *error.lines)
        except api.RefusedError as error:
            return _failed(404 if error.missing else 409, str(error))
        except Exception as error:
            cluster.defect(f"answer {name}", error)
            return _failed(500, cluster.problem, _UPDATED)
        return answer if isinstance(answer, Response) else JSONResponse(answer)

    return Starlette(routes=[Route("/{name}", call, methods=["POST"])])


_UPDATED = "if guestbook was updated since this lab started, start the lab again"


def _failed(status: int, *errors: str) -> Response:
    # A word of a command line that is not UTF-8 has surrogates, which JSON can't have.
    lines = [error.encode(errors="replace").decode() for error in errors]
    return JSONResponse({"errors": lines}, status)


async def apply(
    cluster: Cluster,
    files: list[tuple[str, str | Json]],
    namespace: str | None = None,
    manner: api.Manner = "apply",
    selector: str = "",
    dry_run: bool = False,
) -> Json:
    """Applies, creates or replaces objects, and waits until the change is in force.

    It is then in force for open connections too. After SETTLE seconds it answers all the same,
    with a warning that names the pods whose proxy has not taken it, and with no rejections: those
    of an earlier push are not of this change.
    """
    applied = api.apply(
        cluster, files, namespace, manner=manner, selector=selector, dry_run=dry_run
    )
    return await _in_force(cluster, applied, dry_run=dry_run)


async def _in_force(cluster: Cluster, applied: api.Applied, *, dry_run: bool) -> Json:
    """Returns the answer about a change, once it is in force."""
    warnings, rejected = list(applied.warnings), []
    if not dry_run:
        revision = cluster.revision
        if late := await cluster.in_force(SETTLE):
            warnings.append(late)
        if cluster.pushed >= revision:
            rejected = cluster.rejected
        if cluster.mesh is not None:  # Known only now: the keys are fetched with the push.
            warnings += cluster.mesh.key_warnings(applied.resources)
    return {
        "results": applied.results,
        "warnings": warnings,
        "rejected": rejected,
        "refused": applied.refused,
    }


async def patch(cluster: Cluster, dry_run: bool = False, **query: Any) -> Json:
    """Patches an object, and waits as `apply` does; returns the changed object too."""
    applied, item = api.patch(cluster, dry_run=dry_run, **query)
    answer = await _in_force(cluster, applied, dry_run=dry_run)
    if not dry_run:
        (item,) = api.objects(cluster, [query["kind"]], query["namespace"], [query["name"]])
    return answer | {"item": item}


async def objects(
    cluster: Cluster,
    kinds: Sequence[str],
    after: int | None = None,
    timeout: float = 10,
    in_effect: bool = False,
    **query: Any,
) -> Json:
    """Returns objects and the revision they are of; events have revisions of their own.

    With `after` it waits for a newer revision, at most `timeout` seconds; with `in_effect` until
    the proxies know what is returned, for those who then send requests.
    """
    kind = derived.find(kinds[0]) if len(kinds) == 1 else None
    source = cluster.events if kind is not None and kind.kind == "Event" else cluster
    if after is not None:
        await source.wait_for_change(after, timeout)
    answer = {"revision": source.revision, "items": api.objects(cluster, kinds, **query)}
    if in_effect:
        await cluster.settled(SETTLE)
    return answer


async def change(cluster: Cluster, **query: Any) -> list[str]:
    """Changes labels or annotations, and waits as `apply` does: policies have some of these."""
    changed = api.change(cluster, **query)
    await cluster.in_force(SETTLE)
    return changed


async def delete(cluster: Cluster, *, wait: bool = True, **query: Any) -> list[str]:
    """Deletes objects; with `wait` that is in force then, for open connections too."""
    deleted = await api.delete(cluster, wait=wait, **query)
    if wait:
        await cluster.in_force(SETTLE)
    return deleted


async def delete_files(cluster: Cluster, *, wait: bool = True, **query: Any) -> Json:
    """Deletes the objects of manifests, and waits as `delete` does."""
    answer = await api.delete_files(cluster, wait=wait, **query)
    if wait:
        await cluster.in_force(SETTLE)
    return answer


def refusals(cluster: Cluster) -> Json:
    """Returns the files that each Envoy refused, by `POD.NAMESPACE` and type of resources."""
    return dict(cluster.mesh.refusals()) if cluster.mesh is not None else {}


def key_sets(cluster: Cluster) -> Json:
    """Returns the fetched JSON Web Key Sets by the URL they came from."""
    return dict(cluster.mesh.key_sets()) if cluster.mesh is not None else {}


def read_log(
    cluster: Cluster,
    namespace: str,
    pod: str,
    container: str | None = None,
    tail: int | None = None,
    since: float | None = None,
    timestamps: bool = False,
    follow: bool = False,
    previous: bool = False,
) -> Response:
    """Returns the log of a container as plain text, and with `follow` what is added to it.

    With `previous` it is that of the run before the present one. `since` is the time of the first
    line, in seconds since 1970.
    """
    runner, name = exec.find_container(cluster, namespace, pod, container)
    path = runner.log(name)
    between = exec.previous_run(runner, name) if previous else None
    first = None if since is None else datetime.fromtimestamp(since, UTC)

    def text(line: bytes) -> bytes:
        return (line if timestamps else line.partition(b" ")[2]) + b"\n"

    if not follow:
        return PlainTextResponse(b"".join(map(text, logs.lines(path, tail, first, between))))

    async def following() -> AsyncIterator[bytes]:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        added = logs.follow(path)
        for line in logs.lines(path, tail, first):
            yield text(line)
        async for line in added:
            yield text(line)

    return StreamingResponse(following(), media_type="text/plain")


def requests(cluster: Cluster, seconds: float = WINDOW, follow: bool = False) -> Response:
    """Returns the requests of the last seconds as JSON lines, and with `follow` those to come."""

    async def lines() -> AsyncIterator[bytes]:
        async for found in cluster.requests.follow(seconds):
            for batch in _batches(found):
                yield b"".join(json.dumps(as_json(one)).encode() + b"\n" for one in batch)
                await asyncio.sleep(0)  # Others want their turn.
            if not follow:
                return

    return StreamingResponse(lines(), media_type="application/jsonl")


def _batches(found: Sequence[Observed]) -> Iterator[Sequence[Observed]]:
    return (found[start : start + 200] for start in range(0, len(found), 200))


OPERATIONS: dict[str, Callable[..., Any]] = {
    "apply": apply,
    "patch": patch,
    "objects": objects,
    "delete": delete,
    "delete_files": delete_files,
    "change": change,
    "scale": api.scale,
    "restart": api.restart,
    "undo": api.undo,
    "history": api.history,
    "refusals": refusals,
    "key_sets": key_sets,
    "logs": read_log,
    "requests": requests,
    "images": api.images,
    "exec": exec.exec_command,
    "forward": exec.forward_target,
}
"""The operations by name; their parameters are those of the requests."""


class Server(uvicorn.Server):
    """uvicorn in a program with signal handlers of its own, idle between requests."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.ended = asyncio.Event()

    async def main_loop(self) -> None:
        await self.on_tick(0)
        await self.ended.wait()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def bind(path: Path) -> socket.socket:
    """Makes the control socket, for its owner alone; works in folders with long names."""
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
    """Answers requests until cancelled."""
    config = uvicorn.Config(
        app, log_config=None, access_log=False, lifespan="off", date_header=False
    )
    running = Server(config)
    task = asyncio.create_task(running.serve(sockets=[server]))
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        running.ended.set()
        running.force_exit = True
        await task
        raise
