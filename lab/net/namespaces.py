"""Namespaces without root: one of users and mounts for the lab, one of the network for each pod.

The lab's process becomes master of a new user namespace and keeps the host's network: its control
socket and its port 8080 stay where they were. Threads and children alone enter a pod's network. A
socket belongs to the network in which it was made, whoever uses it later.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from lab.net import netlink

NEWNS, NEWUTS, NEWUSER, NEWNET = 0x00020000, 0x04000000, 0x10000000, 0x40000000
BIND, RECURSIVE, SLAVE = 4096, 16384, 1 << 19
_FILE_SYSTEM = 0x200
_NET_ADMIN = 12
_AMBIENT, _RAISE = 47, 2

_LIBC = ctypes.CDLL(None, use_errno=True)

_INSIDE = ThreadPoolExecutor(1)
"""The thread that enters networks: from one to another, but never back to the machine's."""

T = TypeVar("T")


def call(name: str, *arguments: object) -> None:
    """Calls a function of the C library. Raises OSError, which names it."""
    if getattr(_LIBC, name)(*arguments) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")


def mount(source: str | Path, target: str | Path, kind: str = "", flags: int = 0) -> None:
    call("mount", os.fsencode(source), os.fsencode(target), os.fsencode(kind) or None, flags, None)


def become_master() -> None:
    """Enters a user and a mount namespace, for this process and its children.

    To be called before the first thread is started. The user keeps the own number, so files stay
    the user's, and programs lose all capabilities when they start, as in containers.
    """
    uid, gid = os.geteuid(), os.getegid()
    call("unshare", NEWUSER | NEWNS)
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"{uid} {uid} 1")
    Path("/proc/self/gid_map").write_text(f"{gid} {gid} 1")
    # Mounts of the host still arrive here; those made here stay here.
    mount("none", "/", flags=RECURSIVE | SLAVE)


@dataclass(slots=True)
class Network:
    """A network namespace: it lives as long as this object or a process in it."""

    descriptor: int = -1
    links: socket.socket = field(init=False)
    """For links, addresses and routes."""
    rules: socket.socket = field(init=False)
    """For the rules of nftables."""
    sockets: socket.socket = field(init=False)
    """For questions about TCP sockets."""

    def __post_init__(self) -> None:
        _INSIDE.submit(self._make).result()
        netlink.send(self.links, [netlink.up(1)])

    def _make(self) -> None:
        call("unshare", NEWNET)
        self.descriptor = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        self.links = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0)
        self.rules = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, netlink.NETFILTER)
        self.sockets = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, netlink.SOCKETS)
        # Every container may bind ports below 1024, as containerd has it; read-only in some
        # containers, and then they may not.
        with contextlib.suppress(OSError):
            Path("/proc/sys/net/ipv4/ip_unprivileged_port_start").write_text("0")

    def index(self, link: str) -> int:
        return self.inside(lambda: socket.if_nametoindex(link))

    def inside(self, function: Callable[[], T]) -> T:
        """Returns the result of a function in this network."""
        return _INSIDE.submit(self._entered, function).result()

    def _entered(self, function: Callable[[], T]) -> T:
        call("setns", self.descriptor, NEWNET)
        return function()

    def socket(self, kind: int = socket.SOCK_STREAM) -> socket.socket:
        """Returns a new socket of this network."""
        return self.inside(lambda: socket.socket(socket.AF_INET, kind))

    def close(self) -> None:
        self.links.close()
        self.rules.close()
        self.sockets.close()
        os.close(self.descriptor)


class _Header(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


def keep_network_admin() -> None:
    """Lets the next program of this process mark packets, and have no other capability."""
    header, sets = _Header(0x20080522, 0), (ctypes.c_uint32 * 6)()
    call("capget", ctypes.byref(header), sets)
    sets[2] |= 1 << _NET_ADMIN
    call("capset", ctypes.byref(header), sets)
    call("prctl", _AMBIENT, _RAISE, _NET_ADMIN, 0, 0)


def enter(network: Network, host_name: str) -> None:
    """Moves this process, a child before it becomes a program, into a pod.

    Mounts that it makes from now on are its own.
    """
    call("setns", network.descriptor, NEWNET)
    call("unshare", NEWNS | NEWUTS)
    socket.sethostname(host_name)


def settle(folder: Path, *, network_admin: bool = False) -> None:
    """Ends the way into a pod: its working folder, and whether the program may mark packets."""
    os.chdir(folder)
    if network_admin:
        keep_network_admin()


def _join(pid: int, *kinds: str) -> None:
    # All are opened before the first is entered: /proc looks different from inside.
    opened = [os.open(f"/proc/{pid}/ns/{kind}", os.O_RDONLY) for kind in kinds]
    for descriptor in opened:
        call("setns", descriptor, 0)
        os.close(descriptor)


def join_thread(pid: int) -> None:
    """Moves this thread of the lab, and what it starts from now on, to where a process is."""
    # A thread has its own root and working folder only when it asks for them.
    call("unshare", _FILE_SYSTEM)
    _join(pid, "mnt", "uts", "net")


def join(pid: int, folder: str, *, network_admin: bool = False) -> None:
    """Moves this process, which has one thread, to where another process of the same user is.

    `folder` is its working folder there; `network_admin` is as in `settle`.
    """
    _join(pid, "user", "mnt", "uts", "net")
    settle(Path(folder), network_admin=network_admin)
