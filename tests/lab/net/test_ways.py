"""Ways between pods and the machine: to the outside, and from it to a pod."""

from __future__ import annotations

import asyncio
import os

from lab.net import ways
from lab.net.namespaces import Network
from lab.net.node import HOST, NODE, Node
from tests.support.namespaces import isolated

A = "10.244.0.10"


def test_a_pod_reaches_the_machines_localhost_by_its_name_and_large_answers_are_whole() -> None:
    async def size() -> int:
        node, pod = Node(), Network()
        node.attach(pod, A)
        outside = await ways.out(node.network)
        size = 5_000_000

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readline()
            writer.write(os.urandom(size))
            writer.write_eof()

        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        reader, writer = await ways.connect(pod, HOST, port)
        writer.write(b"more\n")
        found = len(await reader.read())
        writer.close()
        outside.close()
        return found

    assert isolated(lambda: asyncio.run(size())) == 5_000_000


def test_what_the_outside_refuses_is_reset() -> None:
    async def outcome() -> str:
        node, pod = Node(), Network()
        node.attach(pod, A)
        outside = await ways.out(node.network)
        closed = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0)
        port = closed.sockets[0].getsockname()[1]
        closed.close()
        reader, writer = await ways.connect(pod, HOST, port)
        try:
            await reader.read()
            return "no reset"
        except ConnectionResetError:
            return "reset"
        finally:
            writer.close()
            outside.close()

    assert isolated(lambda: asyncio.run(outcome())) == "reset"


def test_the_node_reaches_a_pod_from_its_own_address() -> None:
    async def sees() -> str:
        node, pod = Node(), Network()
        node.attach(pod, A)
        seen = asyncio.get_running_loop().create_future()

        async def serve(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            seen.set_result(writer.get_extra_info("peername")[0])

        listener = pod.socket()
        listener.bind(("0.0.0.0", 80))
        await asyncio.start_server(serve, sock=listener)
        _, writer = await ways.connect(node.network, A, 80)
        found = str(await seen)
        writer.close()
        return found

    assert isolated(lambda: asyncio.run(sees())) == NODE
