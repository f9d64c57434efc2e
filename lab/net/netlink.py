"""Netlink messages, as bytes: links, addresses and routes, the rules of nftables, and sockets.

The kernel's own interface, so that no program (ip, nft, iptables, ss) and no library is needed.
Numbers are those of linux/rtnetlink.h, linux/if_link.h, linux/netfilter/nf_tables.h and
linux/inet_diag.h.
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterator, Mapping, Sequence

NETFILTER, SOCKETS = 12, 4
"""The protocols of a netlink socket for rules, and for questions about sockets.

0 is that of one for links, addresses and routes.
"""

_REQUEST, _ACK, _DUMP, _EXCLUSIVE, _CREATE, _APPEND = 0x1, 0x4, 0x300, 0x200, 0x400, 0x800
_NESTED = 0x8000
_ERROR, _DONE = 2, 3
"""The types of an answer, whose number is 0 for a success, and of the end of a list."""


def attribute(kind: int, value: bytes | str | int | list[bytes]) -> bytes:
    """Returns one attribute; a list is nested, an int is 32 bits in the machine's byte order."""
    if isinstance(value, list):
        value, kind = b"".join(value), kind | _NESTED
    elif isinstance(value, str):
        value = value.encode() + b"\0"
    elif isinstance(value, int):
        value = struct.pack("=I", value)
    return struct.pack("=HH", len(value) + 4, kind) + value + b"\0" * (-len(value) % 4)


def message(kind: int, body: bytes, flags: int = _CREATE | _ACK, sequence: int = 0) -> bytes:
    head = struct.pack("=IHHII", len(body) + 16, kind, flags | _REQUEST, sequence, 0)
    return head + body


def send(sock: socket.socket, messages: Sequence[bytes]) -> None:
    """Sends messages in one datagram and waits for their answers.

    Raises OSError with the kernel's error for the first that it refuses.
    """
    sock.send(b"".join(messages))
    expected = sum(1 for item in messages if struct.unpack_from("=H", item, 6)[0] & _ACK)
    while expected:
        data = sock.recv(65536)
        while data:
            length, kind = struct.unpack_from("=IH", data)
            if kind == _ERROR:
                if error := struct.unpack_from("=i", data, 16)[0]:
                    raise OSError(-error, f"netlink: {os.strerror(-error)}")
                expected -= 1
            data = data[(length + 3) & ~3 :]


# Links, addresses and routes.


def _link(index: int = 0, *, up: bool = False) -> bytes:
    return struct.pack("=BxHiII", 0, 0, index, int(up), int(up))


def cable(name: str, peer: str, namespace: int) -> bytes:
    """Returns the message for a pair of virtual links (veth).

    `peer` lies in the network namespace of a file descriptor.
    """
    other = _link() + attribute(3, peer) + attribute(28, namespace)
    info = attribute(18, [attribute(1, "veth"), attribute(2, [attribute(1, other)])])
    return message(16, _link() + attribute(3, name) + info, _EXCLUSIVE | _CREATE | _ACK)


def up(index: int, *, forwarding: bool = False) -> bytes:
    """Returns the message that switches on a link, and forwarding of what comes in by it."""
    body = _link(index, up=True)
    if forwarding:
        # The file in /proc/sys for it may be read-only, as it is in containers.
        body += attribute(26, [attribute(2, [attribute(1, [attribute(1, 1)])])])
    return message(16, body, _ACK)


def address(index: int, value: str, prefix: int = 32) -> bytes:
    body = struct.pack("=BBBBi", 2, prefix, 0, 0, index)
    packed = socket.inet_aton(value)
    return message(20, body + attribute(2, packed) + attribute(1, packed))


def route(
    index: int, to: str, prefix: int, *, via: str | None = None, source: str | None = None
) -> bytes:
    """Returns the message for a route; `source` is the address of connections made by it."""
    scope = 253 if via is None else 0
    body = struct.pack("=BBBBBBBBI", 2, prefix, 0, 0, 254, 4, scope, 1, 0)
    if prefix:
        body += attribute(1, socket.inet_aton(to))
    body += attribute(4, index)
    for kind, value in ((5, via), (7, source)):
        body += attribute(kind, socket.inet_aton(value)) if value else b""
    return message(24, body)


# Rules. A rule is a list of expressions: matches, then what is done.

Rule = list[bytes]

HOOKS = {"prerouting": (0, -100), "output": (3, -100), "postrouting": (4, 100)}
"""The chains through which packets go, with number and priority of the hook of each."""


def _be32(value: int) -> bytes:
    return struct.pack("!i" if value < 0 else "!I", value)


def _expression(name: str, *data: bytes) -> bytes:
    return attribute(1, [attribute(1, name), attribute(2, list(data))])


def _compare(value: bytes, *, equal: bool = True) -> bytes:
    operator = attribute(2, _be32(0 if equal else 1))
    return _expression("cmp", attribute(1, _be32(1)), operator, attribute(3, [attribute(1, value)]))


def _meta(key: int, value: bytes, *, equal: bool = True) -> Rule:
    load = _expression("meta", attribute(2, _be32(key)), attribute(1, _be32(1)))
    return [load, _compare(value, equal=equal)]


def _payload(header: int, offset: int, value: bytes, *, equal: bool = True) -> Rule:
    place = (1, header, offset, len(value))
    load = _expression("payload", *(attribute(n + 1, _be32(v)) for n, v in enumerate(place)))
    return [load, _compare(value, equal=equal)]


def tcp() -> Rule:
    return _meta(16, b"\x06")


def port(number: int, *, equal: bool = True) -> Rule:
    """Matches a destination port."""
    return _payload(2, 2, struct.pack("!H", number), equal=equal)


def source(value: str) -> Rule:
    return _payload(1, 12, socket.inet_aton(value))


def destination(value: str, prefix: int = 32, *, equal: bool = True) -> Rule:
    """Matches a destination address; `prefix` is a multiple of 8."""
    return _payload(1, 16, socket.inet_aton(value)[: prefix // 8], equal=equal)


def leaves_by(link: str) -> Rule:
    return _meta(7, link.encode().ljust(16, b"\0"))


def mark(value: int, *, equal: bool = True) -> Rule:
    """Matches the mark of the socket that sends (SO_MARK)."""
    return _meta(3, struct.pack("=I", value), equal=equal)


def one_in(count: int) -> Rule:
    """Matches one connection of `count`, at random."""
    if count <= 1:
        return []
    parts = (attribute(1, _be32(1)), attribute(2, _be32(count)), attribute(3, _be32(1)))
    return [_expression("numgen", *parts), _compare(bytes(4))]


def _load(register: int, value: bytes) -> bytes:
    data = attribute(2, [attribute(1, value)])
    return _expression("immediate", attribute(1, _be32(register)), data)


def leave() -> Rule:
    """Ends the chain: the packet goes on as it is."""
    verdict = attribute(2, [attribute(2, [attribute(1, _be32(-5))])])
    return [_expression("immediate", attribute(1, _be32(0)), verdict)]


def redirect(number: int) -> Rule:
    """Leads a connection to a port of this namespace."""
    return [_load(1, struct.pack("!H", number)), _expression("redir", attribute(1, _be32(1)))]


def forward_to(host: str, number: int) -> Rule:
    """Leads a connection to another address (destination NAT)."""
    parts = (attribute(n, _be32(v)) for n, v in ((1, 1), (2, 2), (3, 1), (5, 2)))
    loads = [_load(1, socket.inet_aton(host)), _load(2, struct.pack("!H", number))]
    return [*loads, _expression("nat", *parts)]


def masquerade() -> Rule:
    """Gives a connection the address of this namespace."""
    return [_expression("masq")]


def table(name: str, chains: Mapping[str, Sequence[Rule]]) -> list[bytes]:
    """Returns the messages that replace a table of address translation, in one transaction."""
    family = struct.pack("!BBH", 2, 0, 0)
    out: list[bytes] = []

    def add(kind: int, body: bytes, flags: int = _CREATE | _ACK) -> None:
        out.append(message(10 << 8 | kind, family + body, flags, len(out)))

    # Made before it is deleted, so that there is one to delete.
    add(0, attribute(1, name))
    add(2, attribute(1, name), _ACK)
    add(0, attribute(1, name))
    for chain, rules in chains.items():
        hook = attribute(4, [attribute(n + 1, _be32(v)) for n, v in enumerate(HOOKS[chain])])
        add(3, attribute(1, name) + attribute(3, chain) + hook + attribute(7, "nat"))
        for rule in rules:
            body = attribute(1, name) + attribute(2, chain) + attribute(4, rule)
            add(6, body, _CREATE | _APPEND | _ACK)
    batch = struct.pack("!BBH", 0, 0, 10)
    return [message(16, batch, 0), *out, message(17, batch, 0)]


# Sockets.


def listening(sock: socket.socket) -> frozenset[int]:
    """Returns the TCP ports on which programs listen in the network of a socket of SOCKETS.

    The kernel goes through its listeners alone; /proc/net/tcp goes through all connections of the
    machine. Raises OSError.
    """
    return frozenset(port for family in _FAMILIES for port in _listening(sock, family))


_FAMILIES = (socket.AF_INET, socket.AF_INET6)


def _listening(sock: socket.socket, family: int) -> Iterator[int]:
    question = struct.pack("=BBxxI48x", family, socket.IPPROTO_TCP, 1 << _LISTEN)
    sock.send(message(20, question, _DUMP))
    while True:
        data = sock.recv(65536)
        while data:
            length, kind = struct.unpack_from("=IH", data)
            if kind == _DONE:
                return
            if kind == _ERROR:
                error = -struct.unpack_from("=i", data, 16)[0]
                raise OSError(error, f"netlink: {os.strerror(error)}")
            yield struct.unpack_from("!H", data, 20)[0]
            data = data[(length + 3) & ~3 :]


_LISTEN = 10
"""The state of a TCP socket that listens."""
