"""The client of the lab's control socket."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lab.cli.output import for_lab


class FailureError(Exception):
    """Why a command failed, in lines for standard error.

    `missing`: an object isn't there; `existing`: it is there already.
    """

    def __init__(self, *lines: str, missing: bool = False, existing: bool = False) -> None:
        super().__init__("\n".join(lines))
        self.lines = lines
        self.missing = missing
        self.existing = existing


class _Connection(http.client.HTTPConnection):
    def __init__(self, folder: Path) -> None:
        super().__init__("localhost")
        self._folder = folder

    def connect(self) -> None:
        self.sock = connected(self._folder, "control.sock")


def connected(folder: Path, name: str) -> socket.socket:
    """Returns a connection to a socket of the lab in `folder`. Raises OSError."""
    # A socket's path is limited to about 100 characters; this one is short however deep.
    handle = os.open(folder, os.O_RDONLY)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        short = f"/proc/self/fd/{handle}/{name}"
        sock.connect(short if Path("/proc/self/fd").is_dir() else str(folder / name))
    except OSError:
        sock.close()
        raise
    finally:
        os.close(handle)
    return sock


class Client:
    """Requests to the lab whose state folder is `folder`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def call(self, operation: str, **body: Any) -> Any:
        """Returns the answer to one request. Raises FailureError."""
        with self._send(operation, body) as response:
            answer = json.loads(response.read() or b"{}")
        if response.status >= 400:
            raise FailureError(*answer["errors"], missing=response.status == 404)
        return answer

    def call_or_note(self, missing: list[str], operation: str, **body: Any) -> Any:
        """Returns the answer; None when an object isn't there, with the reason in `missing`."""
        try:
            return self.call(operation, **body)
        except FailureError as error:
            if not error.missing:
                raise
            missing.extend(error.lines)
        return None

    def stream(self, operation: str, **body: Any) -> Iterator[bytes]:
        """Yields an answer as it comes. Raises FailureError."""
        with self._send(operation, body) as response:
            if response.status >= 400:
                raise FailureError(*json.loads(response.read())["errors"])
            while chunk := response.read1(65536):
                yield chunk

    @contextlib.contextmanager
    def _send(self, operation: str, body: Any) -> Iterator[http.client.HTTPResponse]:
        headers = {"Content-Type": "application/json"}
        try:
            with contextlib.closing(_Connection(self.folder)) as connection:
                connection.request("POST", f"/{operation}", json.dumps(body), headers)
                with connection.getresponse() as response:
                    yield response
        except (FileNotFoundError, ConnectionRefusedError, NotADirectoryError):
            start = for_lab(self.folder, "up")
            raise FailureError(
                f"no lab is running in {self.folder}; start one with: {start}"
            ) from None
        except (ConnectionResetError, http.client.RemoteDisconnected):
            raise FailureError("the lab stopped while it was asked") from None


def lab_client(folder: Path | None) -> Client:
    """Returns a client of the lab in `folder`, by default in the usual one."""
    from lab.cluster.state import default_folder

    return Client(folder or default_folder())
