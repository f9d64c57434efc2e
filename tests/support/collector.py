"""A collector for spans over HTTP: OTLP (JSON) on /v1/traces, Zipkin v2 on /api/v2/spans."""

from __future__ import annotations

import gzip
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Json = dict[str, Any]


@dataclass
class Collector:
    url: str
    otlp: list[Json] = field(default_factory=list)
    """Spans as OTLP has them, with the resource's attributes under "resource"."""
    zipkin: list[Json] = field(default_factory=list)
    """Spans as Zipkin v2 has them."""

    def receive(self, path: str, body: Any) -> None:
        if path == "/v1/traces":
            for group in body["resourceSpans"]:
                resource = attributes(group["resource"])
                for scope in group["scopeSpans"]:
                    self.otlp += [{**span, "resource": resource} for span in scope["spans"]]
        elif path == "/api/v2/spans":
            self.zipkin += body


def attributes(holder: Json) -> Json:
    """The attributes of an OTLP span or resource as a plain mapping."""
    return {
        item["key"]: next(iter(item["value"].values())) for item in holder.get("attributes", ())
    }


@contextmanager
def collector(port: int = 0) -> Iterator[Collector]:
    """A running collector; without a port, on a free one."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            if self.headers.get("content-encoding") == "gzip":
                body = gzip.decompress(body)
            made.receive(self.path, json.loads(body))
            self.send_response(202 if self.path == "/api/v2/spans" else 200)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", "2")
            self.end_headers()
            self.wfile.write(b"{}")

        def log_message(self, format: str, *args: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", port), Handler) as server:
        made = Collector(f"http://127.0.0.1:{server.server_port}")
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield made
        finally:
            server.shutdown()
            thread.join()
