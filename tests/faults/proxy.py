"""A network that breaks in the worst moment: when a transaction is committed."""

from __future__ import annotations

import contextlib
import socket
import threading
from types import TracebackType
from typing import Self

COMMIT = b"\x03COMMIT"
"""The command as MySQL's protocol carries it: COM_QUERY and the statement."""


class CutAtCommit:
    """Forwards connections to a server; cuts some of them when they commit.

    `carried_out`: whether the server gets the commit whose answer the client never sees.
    """

    def __init__(self, port: int, carried_out: bool) -> None:
        self._target = port
        self._carried_out = carried_out
        self._lock = threading.Lock()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.left = 0
        """How many commits are still to be cut."""

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

    def cut_next(self, commits: int) -> None:
        with self._lock:
            self.left = commits

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(("127.0.0.1", self._target))
                for work in (self._to_server, self._to_client):
                    threading.Thread(target=work, args=(client, server), daemon=True).start()

    def _to_server(self, client: socket.socket, server: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := client.recv(65536):
                if COMMIT in data and self._cuts():
                    client.shutdown(socket.SHUT_RDWR)
                    if self._carried_out:
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

    def _cuts(self) -> bool:
        with self._lock:
            if self.left == 0:
                return False
            self.left -= 1
            return True
