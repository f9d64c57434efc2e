"""A network between a service and its database: it leads elsewhere, or breaks where it hurts."""

from __future__ import annotations

import contextlib
import socket
import threading
from types import TracebackType
from typing import Self

QUERY = b"\x03"
"""The command with a statement in MySQL's protocol; the packet's length and number precede it."""


class Proxy:
    """Forwards connections to a server; new ones to the port that is `target` when they come."""

    def __init__(self, target: int) -> None:
        self.target = target
        self._lock = threading.Lock()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def cuts(self, data: bytes) -> bool:
        """Whether the connection ends at these bytes for the server."""
        return False

    def carries_out(self) -> bool:
        """Whether the server gets the bytes whose answer the client never sees."""
        return False

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(("127.0.0.1", self.target))
                for work in (self._to_server, self._to_client):
                    threading.Thread(target=work, args=(client, server), daemon=True).start()

    def _to_server(self, client: socket.socket, server: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := client.recv(65536):
                if self.cuts(data):
                    client.shutdown(socket.SHUT_RDWR)
                    if self.carries_out():
                        server.sendall(data)
                    break
                server.sendall(data)
        with contextlib.suppress(OSError):
            # After a commit it was given the server carries it out before it sees the end.
            server.shutdown(socket.SHUT_WR)

    def _to_client(self, client: socket.socket, server: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := server.recv(65536):
                client.sendall(data)
        for end in (client, server):
            end.close()


class Cut(Proxy):
    """Cuts connections at statements.

    `at`: only statements with these words count; `carried_out`: whether the server gets them.
    """

    def __init__(self, target: int, *, carried_out: bool, at: bytes = b"") -> None:
        super().__init__(target)
        self._carried_out = carried_out
        self._at = at
        self._spared = 0
        self.left = 0
        """The number of statements still to be cut."""

    def cut_next(self, statements: int, *, after: int = 0) -> None:
        """Cut so many of the coming statements, after some that are spared."""
        with self._lock:
            self.left, self._spared = statements, after

    def cuts(self, data: bytes) -> bool:
        if data[4:5] != QUERY or not data[5:].startswith(self._at):
            return False
        with self._lock:
            if self._spared:
                self._spared -= 1
                return False
            if self.left:
                self.left -= 1
                return True
            return False

    def carries_out(self) -> bool:
        return self._carried_out
