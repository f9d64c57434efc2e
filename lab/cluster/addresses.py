"""Addresses on the loopback range: a /24 slice a lab, an address a pod and a Service.

Linux answers on all of 127.0.0.0/8 without configuration. In slice N pods have 127.77.N.x, their
applications 127.78.N.x (when a proxy stands in front) and Services 127.79.N.x.
"""

from __future__ import annotations

import errno
import socket
import zlib
from collections import deque
from dataclasses import dataclass, field

GUARD_PORT = 15017
"""A lab holds this port on its slice's first address, so that no other takes the slice."""

PRIVILEGED_SHIFT = 10000
"""N + 10000 stands for a port N < 1024 that may not be bound."""


class NoAddressesError(Exception):
    """The machine has no usable loopback range; the message says why."""


@dataclass(slots=True)
class Slice:
    """The part of the range that one lab has."""

    number: int
    guard: socket.socket
    _pods: deque[int] = field(default_factory=lambda: deque(range(2, 255)))
    _services: deque[int] = field(default_factory=lambda: deque(range(2, 255)))

    def take_pod(self) -> tuple[str, str]:
        """Takes a pod's address and inside address, those released longest ago first."""
        if not self._pods:
            raise NoAddressesError("253 pods are running: the lab has no address for another")
        host = self._pods.popleft()
        return f"127.77.{self.number}.{host}", f"127.78.{self.number}.{host}"

    def release_pod(self, address: str) -> None:
        self._pods.append(int(address.rpartition(".")[2]))

    def take_service(self) -> str:
        if not self._services:
            raise NoAddressesError("253 Services exist: the lab has no address for another")
        return f"127.79.{self.number}.{self._services.popleft()}"

    def release_service(self, address: str) -> None:
        self._services.append(int(address.rpartition(".")[2]))

    def close(self) -> None:
        self.guard.close()


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
            return Slice(number, guard)
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
