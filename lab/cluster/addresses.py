"""Addresses of pods and Services; those on the loopback range are of a /24 slice for each lab.

Linux answers on all of 127.0.0.0/8 without configuration. In slice N pods have 127.77.N.x, their
applications 127.78.N.x (when a proxy stands in front) and Services 127.79.N.x.
"""

from __future__ import annotations

import errno
import socket
import zlib
from collections import deque
from dataclasses import dataclass
from ipaddress import IPv4Address

GUARD_PORT = 15017
"""A lab holds this port on its slice's first address, so that no other takes the slice."""

PRIVILEGED_SHIFT = 10000
"""N + 10000 stands for a port N < 1024 that may not be bound."""


class NoAddressesError(Exception):
    """There is no address left, or no usable loopback range; the message says why."""


class Pool:
    """The free addresses from a first to a last one."""

    def __init__(self, first: str, last: str, users: str) -> None:
        """`users` stands after the number of addresses: `pods are running`."""
        numbers = range(int(IPv4Address(first)), int(IPv4Address(last)) + 1)
        self._free = deque(numbers)
        self._used_up = f"{len(numbers)} {users}: the lab has no address for another"

    def take(self) -> str:
        """Takes the address that has been free for longest. Raises NoAddressesError."""
        if not self._free:
            raise NoAddressesError(self._used_up)
        return str(IPv4Address(self._free.popleft()))

    def release(self, address: str) -> None:
        self._free.append(int(IPv4Address(address)))


@dataclass(frozen=True, slots=True)
class Slice:
    """The part of the loopback range that one lab has."""

    pods: Pool
    services: Pool
    guard: socket.socket


def take_slice(seed: str) -> Slice:
    """Takes a free slice; the same `seed` (the state folder) tends to get the same one again.

    Raises NoAddressesError.
    """
    first = zlib.crc32(seed.encode()) % 256
    for step in range(256):
        number = (first + step) % 256
        guard = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        guard.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            guard.bind((f"127.77.{number}.1", GUARD_PORT))
            guard.listen(1)
            return Slice(
                Pool(f"127.77.{number}.2", f"127.77.{number}.254", "pods are running"),
                Pool(f"127.79.{number}.2", f"127.79.{number}.254", "Services exist"),
                guard,
            )
        except OSError as error:
            guard.close()
            if error.errno == errno.EADDRNOTAVAIL:
                raise NoAddressesError(
                    "this system has 127.0.0.1 only, not the loopback range 127.0.0.0/8"
                ) from None
    raise NoAddressesError("all 256 slices of the loopback range are in use by other labs")


def bindable(address: str, port: int) -> int:
    """Returns `port`, or the port that stands for it where privileged ones may not be bound."""
    if port >= 1024:
        return port
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, port))
        except PermissionError:
            return port + PRIVILEGED_SHIFT
        except OSError:
            return port
    return port
