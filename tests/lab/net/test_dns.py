"""Cluster DNS: its answers, and programs in a pod that ask it."""

from __future__ import annotations

import asyncio
import socket
import struct
import tempfile
from pathlib import Path
from typing import cast

import pytest

from lab.net import dns, ways
from lab.net.dns import Zone
from lab.net.files import Mount, arrange
from lab.net.namespaces import Network, enter
from lab.net.node import DNS, HOST, Node
from tests.support.namespaces import isolated

ZONE = Zone(
    addresses={
        "ui.default.svc.cluster.local": ["10.96.0.30"],
        "mysql.default.svc.cluster.local": ["10.244.0.12", "10.244.0.13"],
        "mysql-0.mysql.default.svc.cluster.local": ["10.244.0.12"],
        "many.default.svc.cluster.local": [f"10.244.1.{n}" for n in range(200)],
    },
    aliases={
        "outside.default.svc.cluster.local": "www.example.com",
        "alias.default.svc.cluster.local": "ui.default.svc.cluster.local",
    },
    services={
        "_tcp-mysql._tcp.mysql.default.svc.cluster.local": [
            (3306, "mysql-0.mysql.default.svc.cluster.local")
        ]
    },
)


def query(name: str, kind: int = 1) -> bytes:
    labels = b"".join(bytes([len(part)]) + part.encode() for part in name.split("."))
    return struct.pack("!HHHHHH", 7, 0x0100, 1, 0, 0, 0) + labels + struct.pack("!BHH", 0, kind, 1)


@pytest.mark.parametrize(
    ("name", "kind", "code", "records"),
    [
        ("ui.default.svc.cluster.local", 1, 0, 1),
        ("UI.default.svc.cluster.local", 1, 0, 1),
        ("ui.default.svc.cluster.local", 28, 0, 0),  # AAAA: it exists, without such an address.
        ("mysql.default.svc.cluster.local", 1, 0, 2),
        ("mysql-0.mysql.default.svc.cluster.local", 1, 0, 1),
        ("_tcp-mysql._tcp.mysql.default.svc.cluster.local", 33, 0, 1),
        ("outside.default.svc.cluster.local", 1, 0, 1),  # Only CNAME: others know the rest.
        ("alias.default.svc.cluster.local", 1, 0, 2),
        ("default.svc.cluster.local", 1, 0, 0),
        ("nope.default.svc.cluster.local", 1, 3, 0),
        ("host.lab", 1, 0, 1),
    ],
)
def test_answers(name: str, kind: int, code: int, records: int) -> None:
    reply = dns.answer(query(name, kind), ZONE)
    assert reply is not None
    identity, flags, _, count = struct.unpack_from("!HHHH", reply)
    assert (identity, flags & 15, count) == (7, code, records)


def test_other_names_are_others() -> None:
    assert dns.answer(query("www.example.com"), ZONE) is None
    assert dns.answer(query("ui"), ZONE) is None


@pytest.mark.parametrize("data", [b"", b"\0", query("a.b")[:14], bytes(12) + b"\xff"])
def test_what_is_no_query_is_refused(data: bytes) -> None:
    reply = dns.answer(data, ZONE)
    assert reply is not None
    assert len(reply) == 12
    assert reply[3] & 15 == 2


def test_the_machines_resolver_is_read_from_its_file() -> None:
    text = "# nameserver 9.9.9.9\nsearch x\nnameserver 127.0.0.53\n nameserver  ::1\n"
    assert dns.name_servers(text) == ("127.0.0.53", "::1")


PROGRAM = """
import socket
for name in ("ui", "mysql-0.mysql", "many", "host.lab", "nope", "upstream.example"):
    try:
        found = sorted({item[4][0] for item in socket.getaddrinfo(name, 80, socket.AF_INET)})
        print(name, len(found), found[0])
    except OSError as error:
        print(name, error.strerror)
"""


def test_a_program_in_a_pod_resolves_names() -> None:
    """Through the C library: short names, long answers by TCP, and names of the outside."""

    async def ask() -> str:
        node, pod = Node(), Network()
        node.attach(pod, "10.244.0.10")
        server = await dns.serve(node.network)
        server.zone = ZONE
        loop = asyncio.get_running_loop()
        upstream, _ = await loop.create_datagram_endpoint(Upstream, local_addr=("127.0.0.9", 0))
        port = upstream.get_extra_info("sockname")[1]
        server.upstream = (("127.0.0.9", port),)
        with tempfile.TemporaryDirectory() as folder:
            own = []
            for name, text in (
                ("resolv.conf", dns.resolv_conf("default")),
                ("nsswitch.conf", "hosts: files dns\n"),
            ):
                (Path(folder) / name).write_text(text)
                own.append(Mount(Path(folder) / name, Path("/etc") / name))
            root = Path(folder) / "root"
            root.mkdir()

            def into_pod() -> None:
                enter(pod, "ui-0")
                arrange(own, (), root)

            process = await asyncio.create_subprocess_exec(
                "/usr/bin/env",
                "python3",
                "-c",
                PROGRAM,
                stdout=asyncio.subprocess.PIPE,
                preexec_fn=into_pod,
            )
            async with asyncio.timeout(20):
                output = (await process.communicate())[0].decode()
        server.close()
        upstream.close()
        return output

    lines = isolated(lambda: asyncio.run(ask())).splitlines()
    assert lines[:4] == [
        "ui 1 10.96.0.30",
        "mysql-0.mysql 1 10.244.0.12",
        "many 200 10.244.1.0",
        f"host.lab 1 {HOST}",
    ]
    assert lines[4].startswith("nope ")
    assert "10." not in lines[4]
    assert lines[5] == "upstream.example 1 192.0.2.7"


class Upstream(asyncio.DatagramProtocol):
    """The machine's resolver: knows one name."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, address: tuple[str, int]) -> None:
        known = Zone(addresses={"upstream.example": ["192.0.2.7"]})
        reply = dns.answer(data, known) or data[:2] + b"\x81\x83" + data[4:]
        self.transport.sendto(reply, address)


def test_dns_answers_by_tcp() -> None:
    async def ask() -> bytes:
        node = Node()
        server = await dns.serve(node.network)
        server.zone = ZONE
        reader, writer = await ways.connect(node.network, DNS, 53)
        data = query("ui.default.svc.cluster.local")
        writer.write(len(data).to_bytes(2, "big") + data)
        reply = await reader.readexactly(int.from_bytes(await reader.readexactly(2), "big"))
        writer.close()
        server.close()
        return reply

    assert isolated(lambda: asyncio.run(ask())).endswith(socket.inet_aton("10.96.0.30"))
