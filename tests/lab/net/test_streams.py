"""Forwarded connections whose client sends no more."""

from __future__ import annotations

import asyncio
import gc
from concurrent.futures import ThreadPoolExecutor

from lab.net import streams

LOCALHOST = "127.0.0.1"


def test_an_answer_arrives_however_long_after_the_client_has_sent_everything() -> None:
    async def run() -> bytes:
        asked, ready = asyncio.Event(), asyncio.Event()

        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read()
            asked.set()
            await ready.wait()
            writer.write(b"at last")
            writer.close()

        async with await asyncio.start_server(answer, LOCALHOST, 0) as server:
            place = server.sockets[0].getsockname()
            async with await streams.listen(
                LOCALHOST, 0, lambda: asyncio.open_connection(*place)
            ) as forwarding:
                reader, writer = await asyncio.open_connection(*forwarding.sockets[0].getsockname())
                writer.write_eof()
                await asked.wait()
                gc.collect()
                ready.set()
                found = await reader.read()
                writer.close()
                return found

    with ThreadPoolExecutor(1) as thread:  # This one has a loop when a browser's tests were in it.
        answer = thread.submit(lambda: asyncio.run(asyncio.wait_for(run(), 10))).result()
    assert answer == b"at last"
