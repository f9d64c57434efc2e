"""TCP forwarding: to one of several endpoints, as kube-proxy does for a Service, and to a pod."""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import struct
from collections.abc import Awaitable, Callable, Sequence

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]

Connect = Callable[[str, int], Awaitable[Streams]]

Far = Callable[[], Awaitable[Streams]]
"""Opens the far end of a connection. Raises OSError."""


async def listen(address: str, port: int, far: Far) -> asyncio.Server:
    """Forwards connections to `address:port`; without a far end they are reset.

    Raises OSError when the port can't be bound.
    """

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await join(reader, writer, far)

    return await asyncio.start_server(serve, address, port, backlog=1024)


def one_of(endpoints: Callable[[], Sequence[tuple[str, int]]], connect: Connect) -> Far:
    """Returns the far end at one endpoint, at random; the next one where it is refused."""

    async def far() -> Streams:
        choices = list(endpoints())
        random.shuffle(choices)
        for host, port in choices:
            with contextlib.suppress(OSError):
                return await connect(host, port)
        raise ConnectionRefusedError("no endpoint")

    return far


_OPEN: set[asyncio.Task[None] | None] = set()
"""The tasks that copy. The event loop forgets a connection that will send no more, and its task."""


async def join(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, far: Far) -> None:
    """Copies between a connection and its far end until both have ended."""
    task = asyncio.current_task()
    _OPEN.add(task)
    try:
        await _join(reader, writer, far)
    except (OSError, asyncio.CancelledError):
        writer.transport.abort()
    finally:
        _OPEN.discard(task)


async def _join(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, far: Far) -> None:
    try:
        far_reader, far_writer = await far()
    except OSError:
        _reset(writer)
        return
    try:
        await asyncio.gather(_copy(reader, far_writer), _copy(far_reader, writer))
    except BaseException:
        far_writer.transport.abort()
        raise
    for end in (writer, far_writer):
        end.close()  # When it has sent what it still has.


def _reset(writer: asyncio.StreamWriter) -> None:
    """Ends a connection as one that is refused too late: with a reset."""
    if (sock := writer.get_extra_info("socket")) is not None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
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
