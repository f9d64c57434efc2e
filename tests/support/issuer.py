"""A server of key sets, as an issuer of tokens has one."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from lab.istiod import tokens

KEY = tokens.new_key()
KEYS = tokens.key_set(KEY)


class _Handler(BaseHTTPRequestHandler):
    """Serves KEYS at /keys, and an OpenID configuration that names them."""

    def do_GET(self) -> None:
        found = {
            "/keys": KEYS,
            "/.well-known/openid-configuration": f'{{"jwks_uri": "{_url(self.server)}/keys"}}',
            "/empty": '{"keys": []}',
        }.get(self.path)
        self.send_response(200 if found else 404)
        self.end_headers()
        self.wfile.write((found or "").encode())

    def log_message(self, format: str, *args: object) -> None:
        """Says nothing."""


def _url(server: object) -> str:
    assert isinstance(server, ThreadingHTTPServer)
    return f"http://127.0.0.1:{server.server_port}"


@contextlib.contextmanager
def serving() -> Iterator[str]:
    """Serves the keys; yields the issuer's URL."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield _url(server)
        server.shutdown()
