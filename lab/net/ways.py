"""Ways in and out: connections of this machine to pods, and of pods to the outside.

The network of the node has no link to the machine's own. A connection that crosses is accepted on
one side, made again on the other, and its bytes are copied.
"""

from __future__ import annotations

import asyncio
import random
import socket
import struct
from functools import partial

from lab.net import streams
from lab.net.namespaces import Network
from lab.net.node import HOST, OUTSIDE_PORT, Node
from lab.net.streams import Streams

_ORIGINAL_DESTINATION = 80
"""SO_ORIGINAL_DST: the address that a connection had before a rule led it elsewhere."""


async def connect(network: Network, host: str, port: int, *, source: str | None = None) -> Streams:
    """Connects from a network of the lab, by default from its own address. Raises OSError."""
    made = network.socket()
    try:
        made.setblocking(False)
        if source is not None:
            made.bind((source, 0))
        await asyncio.get_running_loop().sock_connect(made, (host, port))
        return await asyncio.open_connection(sock=made)
    except BaseException:
        made.close()
        raise


async def out(node: Node) -> asyncio.Server:
    """Connects pods to the outside by TCP, also where it is an endpoint of a Service.

    A connection is accepted before the outside has been asked, and reset when it refuses.
    """

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await streams.join(reader, writer, partial(_outside, node, writer))

    listener = node.network.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("0.0.0.0", OUTSIDE_PORT))
    return await asyncio.start_server(serve, sock=listener, backlog=1024)


async def _outside(node: Node, writer: asyncio.StreamWriter) -> Streams:
    accepted = writer.get_extra_info("socket")
    packed = accepted.getsockopt(socket.SOL_IP, _ORIGINAL_DESTINATION, 16)
    port, address = struct.unpack_from("!2xH4s", packed)
    asked = (socket.inet_ntoa(address), port)
    host, port = random.choice(node.outside.get(asked, (asked,)))  # noqa: S311 - load balancing
    return await asyncio.open_connection("127.0.0.1" if host == HOST else host, port)
