"""`python -m lab.net.marked COMMAND…`: a command whose connections bear the proxy's mark.

On a cluster `exec -c istio-proxy` is the user 1337, whose packets istio-init leaves alone. In
a pod of the lab the kernel hands each `socket` call of the command to this process, which has the
right to mark: it makes the socket, marks it, and puts it into the command in place of its own.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import queue
import select
import socket
import struct
import subprocess
import sys
import threading

from lab.names import PROXY_MARK

_SO_MARK = 36
_NO_NEW_PRIVILEGES = 38
_SET_FILTER, _WITH_LISTENER = 1, 8
_MACHINES = {"x86_64": (0xC000003E, 41, 317), "aarch64": (0xC00000B7, 198, 277)}
"""The architecture in seccomp's words, and the numbers of the calls `socket` and `seccomp`."""

_RECEIVE, _ADD_DESCRIPTOR, _ANSWER = 0xC0502100, 0x40182103, 0xC0182101
_ANSWERING = 2
"""The flag that makes the descriptor the result of the call."""

_LOAD, _IF_EQUAL, _RETURN = 0x20, 0x15, 0x06
_ALLOW, _ASK = 0x7FFF0000, 0x7FC00000

_LIBC = ctypes.CDLL(None, use_errno=True)


def _listen() -> int:
    """Filters this thread and its children: sockets of IPv4 and IPv6 are for others to make.

    Returns the descriptor by which they are asked. Raises OSError.
    """
    architecture, make_socket, seccomp = _MACHINES[os.uname().machine]
    program = b"".join(
        struct.pack("=HBBI", *line)
        for line in (
            (_LOAD, 0, 0, 4),  # The architecture.
            (_IF_EQUAL, 0, 5, architecture),
            (_LOAD, 0, 0, 0),  # The number of the call.
            (_IF_EQUAL, 0, 3, make_socket),
            (_LOAD, 0, 0, 16),  # The first argument: the family.
            (_IF_EQUAL, 2, 0, socket.AF_INET),
            (_IF_EQUAL, 1, 0, socket.AF_INET6),
            (_RETURN, 0, 0, _ALLOW),
            (_RETURN, 0, 0, _ASK),
        )
    )
    lines = ctypes.create_string_buffer(program)
    head = struct.pack("HxxxxxxP", len(program) // 8, ctypes.addressof(lines))
    _LIBC.prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0)
    filters = ctypes.create_string_buffer(head)
    found = _LIBC.syscall(seccomp, _SET_FILTER, _WITH_LISTENER, filters)
    if found < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"seccomp: {os.strerror(number)}")
    return int(found)


def _answer(listener: int) -> None:
    """Makes the socket that one call asks for."""
    call = bytearray(80)
    try:
        fcntl.ioctl(listener, _RECEIVE, call)
    except FileNotFoundError:
        return  # The caller has ended meanwhile.
    (identity,) = struct.unpack_from("=Q", call)
    family, kind, protocol = struct.unpack_from("=QQQ", call, 32)
    try:
        with socket.socket(family, kind & 0xFF, protocol) as made:
            made.setsockopt(socket.SOL_SOCKET, _SO_MARK, PROXY_MARK)
            made.setblocking(not kind & os.O_NONBLOCK)
            closing = kind & os.O_CLOEXEC
            given = struct.pack("=QIIII", identity, _ANSWERING, made.fileno(), 0, closing)
            fcntl.ioctl(listener, _ADD_DESCRIPTOR, given)
    except OSError as error:
        refused = struct.pack("=QqiI", identity, 0, -(error.errno or 1), 0)
        fcntl.ioctl(listener, _ANSWER, refused)


def main() -> int:
    """Runs the command to its end; returns its exit status."""
    argv = sys.argv[1:]
    ready: queue.Queue[int | OSError] = queue.Queue()
    ended, ending = os.pipe()
    status = [126]

    def run() -> None:
        try:
            ready.put(_listen())
            status[0] = subprocess.call(argv)
        except FileNotFoundError:
            sys.stderr.write(f'exec: "{argv[0]}": executable file not found in $PATH\n')
            status[0] = 127
        except OSError as error:
            ready.put(error)
            sys.stderr.write(f"exec: {error}\n")
        finally:
            os.close(ending)

    threading.Thread(target=run).start()
    listener = ready.get()
    if isinstance(listener, OSError):
        return status[0]
    while True:
        readable, _, _ = select.select([listener, ended], [], [])
        if ended in readable:  # The listener, too, is readable then.
            return status[0] if status[0] >= 0 else 128 - status[0]
        _answer(listener)


if __name__ == "__main__":
    sys.exit(main())
