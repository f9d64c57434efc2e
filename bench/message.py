"""`/hello/{name}` with metrics, propagation and logs, beside a bare ASGI callable."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

import httpx

from bench.figure import Figure
from bench.load import load
from tests.support.service import Service, environment

CONNECTIONS = 32
ROUNDS = 5
MESH_HEADERS = (
    "x-request-id: 1ca98b3e-7ab2-9a3c-b2a4-0d8e0ad8a6f3",
    "traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    "x-b3-traceid: 0af7651916cd43dd8448eb211c80319c",
    "x-b3-spanid: b7ad6b7169203331",
    "x-b3-sampled: 1",
)
"""Headers that a sidecar adds to each request."""


def figures() -> Iterator[Figure]:
    """Measure; each figure comes as soon as it is known."""
    with ExitStack() as stack:
        message = Service("message", environment(HOSTNAME="bench"))
        stack.callback(message.stop)
        bare = Service("bench.bare", environment())
        stack.callback(bare.stop)
        ours_url, bare_url = f"{message.url}/hello/test", f"{bare.url}/hello/test"
        assert httpx.get(ours_url).content == httpx.get(bare_url).content
        # In turns, so that what else the machine does meets both.
        rounds = [
            (
                load(ours_url, CONNECTIONS, 2, MESH_HEADERS).rate,
                load(bare_url, CONNECTIONS, 2, MESH_HEADERS).rate,
            )
            for _ in range(ROUNDS)
        ]
        ours, reference = (max(rates) for rates in zip(*rounds, strict=True))
        yield Figure(
            "GET /hello/{name} with metrics and propagation, against a bare ASGI callable",
            ours,
            reference,
            "requests/s",
            at_least=0.33,
        )
