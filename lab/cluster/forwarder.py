"""TCP forwarding to one of several endpoints, as kube-proxy does for a Service."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Callable, Sequence

Endpoints = Callable[[], Sequence[tuple[str, int]]]


async def listen(address: str, port: int, endpoints: Endpoints) -> asyncio.Server:
    """Forwards connections to `address:port`; without a ready endpoint they are reset.

    Raises OSError when the port can't be bound.
    """

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.CancelledError):
            await _forward(reader, writer, endpoints)

    return await asyncio.start_server(serve, address, port, backlog=1024)


async def _forward(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, endpoints: Endpoints
) -> None:
    choices = list(endpoints())
    random.shuffle(choices)
    for host, port in choices:
        try:
            far_reader, far_writer = await asyncio.open_connection(host, port)
            break
        except OSError:
            continue
    else:
        writer.transport.abort()
        return
    try:
        await asyncio.gather(_copy(reader, far_writer), _copy(far_reader, writer))
    finally:
        far_writer.transport.abort()
        writer.transport.abort()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while chunk := await reader.read(65536):
            writer.write(chunk)
            await writer.drain()
        if writer.can_write_eof():
            writer.write_eof()
    except ConnectionResetError:
        # A reset on one side is passed on as one.
        writer.transport.abort()
        raise
