"""Ways between pods and the machine: to the outside, and from it to a pod."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable

from lab.net import ways
from lab.net.namespaces import Network
from lab.net.node import HOST, NODE, Node, ServicePort
from tests.support.namespaces import isolated

A, B = "10.244.0.10", "10.244.0.11"


def test_a_pod_reaches_the_machines_localhost_by_its_name_and_large_answers_are_whole() -> None:
    async def size() -> int:
        node, pod = Node(), Network()
        node.attach(pod, A)
        outside = await ways.out(node)
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


def test_a_service_leads_to_pods_and_to_the_outside_alike() -> None:
    """Every endpoint gets its share, whether it is a pod or a server of the machine."""

    async def shares() -> dict[str, int]:
        node, client, pod = Node(), Network(), Network()
        node.attach(client, A)
        node.attach(pod, B)
        outside = await ways.out(node)
        seen = {"pod": 0, "first": 0, "second": 0}

        def counted(name: str) -> Callable[..., None]:
            def serve(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
                seen[name] += 1
                writer.close()

            return serve

        inside = pod.socket()
        inside.bind((B, 8080))
        await asyncio.start_server(counted("pod"), sock=inside)
        ends = [(B, 8080)]
        for name in ("first", "second"):
            server = await asyncio.start_server(counted(name), "127.0.0.1", 0)
            ends.append((HOST, server.sockets[0].getsockname()[1]))
        node.serve([ServicePort("10.96.0.30", 80, tuple(ends))])
        for _ in range(150):
            reader, writer = await ways.connect(client, "10.96.0.30", 80)
            await reader.read()
            writer.close()
        outside.close()
        return seen

    seen = isolated(lambda: asyncio.run(shares()))
    assert sum(seen.values()) == 150
    assert min(seen.values()) > 25


def test_what_the_outside_refuses_is_reset() -> None:
    async def outcome() -> str:
        node, pod = Node(), Network()
        node.attach(pod, A)
        outside = await ways.out(node)
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
