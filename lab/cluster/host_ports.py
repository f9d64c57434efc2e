"""Ports of this machine that lead into a lab: the gateway's, and node ports of Services."""

from __future__ import annotations

import contextlib
import socket
import zlib
from collections.abc import Collection, Mapping

NODE_PORTS = range(30000, 32768)
"""The numbers that Kubernetes gives to node ports."""

_HTTPS_ABOVE_HTTP = 363
"""8443 is for 8080 what 443 is for 80."""


class PortTakenError(Exception):
    """The address of the ingress is in use."""


class BindError(OSError):
    """Some ports of this machine can't be bound."""

    def __init__(self, errors: Mapping[int, OSError]) -> None:
        self.ports = frozenset(errors)
        told = (
            f"port {port} on localhost can't be used: {e.strerror}" for port, e in errors.items()
        )
        super().__init__("; ".join(told))


def free_port(port: int) -> int:
    """Returns a port of localhost that can be bound, any for 0. Raises PortTakenError."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise PortTakenError(
                f"port {port} on localhost can't be used: {error.strerror}"
            ) from None
        return int(probe.getsockname()[1])


def https_port(port: int, http_port: int) -> int:
    """Returns 8443 beside 8080, as far from any other port; any when that one is taken."""
    wanted = port + _HTTPS_ABOVE_HTTP
    if port and wanted < 1 << 16:
        with contextlib.suppress(PortTakenError):
            return free_port(wanted)
    while (found := free_port(0)) == http_port:
        pass
    return found


def node_port(name: str, asked: int | None, taken: Collection[int]) -> int | None:
    """Returns the node port for a name: the one asked for, else one that stays from run to run.

    Another when a program of this machine has it, or when it is taken; None when all are.
    """
    start = zlib.crc32(name.encode()) % len(NODE_PORTS)
    for number in (*([asked] if asked else ()), *NODE_PORTS[start:], *NODE_PORTS[:start]):
        if number not in taken:
            with contextlib.suppress(PortTakenError):
                return free_port(number)
    return None
