"""`GET /api/messages` beside a minimal handler, and with few and many rows."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

from bench.figure import Figure
from bench.load import Load, best
from tests.support.client import PATH, Client, until_ready
from tests.support.mysql import MySQL
from tests.support.service import Service, environment

CONNECTIONS = 32
MANY = 1_000_000
NEWEST = {
    "newest page": f"{PATH}?page=0&size=20&sort=id,desc",
    "newest page by timestamp": f"{PATH}?sort=timestamp,desc",
}


def figures() -> Iterator[Figure]:
    """Measure; each figure comes as soon as it is known."""
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        server = MySQL(Path(folder))
        stack.callback(server.stop)
        with _guestbook(server, 100_000) as service:
            reference = Service("bench.minimal", environment(DATABASE_PORT=server.port))
            stack.callback(reference.stop)
            ours, minimal = best(service.url + PATH, CONNECTIONS), best(reference.url, CONNECTIONS)
        yield Figure(
            "GET /api/messages, 20 of 100,000 rows, against a minimal threaded handler",
            ours.rate,
            minimal.rate,
            "requests/s",
            at_least=0.55,
        )
        few = _loads(server, 100, NEWEST)
        last = f"{PATH}?page={(MANY - 1) // 20}"
        many = _loads(server, MANY, {**NEWEST, "first page": PATH, "last page": last})
        for name in NEWEST:
            yield Figure(
                f"{name}, 100 rows against {MANY:,}",
                few[name].rate,
                many[name].rate,
                "requests/s",
                at_most=1.3,
            )
        yield Figure(
            f"last page of {MANY:,} rows against the first",
            many["last page"].rate,
            many["first page"].rate,
            "requests/s",
            at_least=0.8,
        )


def _loads(server: MySQL, rows: int, pages: Mapping[str, str]) -> dict[str, Load]:
    """Ask for pages, by name, of a table with so many rows."""
    with _guestbook(server, rows) as service:
        return {
            name: best(service.url + page, CONNECTIONS, seconds=2) for name, page in pages.items()
        }


@contextmanager
def _guestbook(server: MySQL, rows: int) -> Iterator[Service]:
    """A guestbook with so many messages."""
    service = Service("guestbook", environment(DATABASE_URL=server.create("guestbook")))
    try:
        with Client(service) as client:
            until_ready(client)
            fill(server, rows)
            # The first page that is read brings the count in line.
            client.get()
            total = client.get().json()["page"]["totalElements"]
            assert total == rows, (total, rows)
        yield service
    finally:
        service.stop()


def fill(server: MySQL, rows: int) -> None:
    """Write messages past the service, the quick way."""
    print(f"    writing {rows:,} messages", file=sys.stderr, flush=True)
    with server.connect("guestbook") as connection, connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO message (username, message, timestamp) "
            "VALUES ('user 1', 'This is message number 1', '2026-01-01 00:00:01')"
        )
        written = 1
        while written < rows:
            more = min(written, rows - written)
            # The ids are given, because InnoDB leaves gaps when it numbers many rows at once.
            cursor.execute(
                "INSERT INTO message (id, username, message, timestamp) "
                f"SELECT id + {written}, CONCAT('user ', (id + {written}) % 97), "
                f"CONCAT('This is message number ', id + {written}), "
                f"timestamp + INTERVAL {written} SECOND FROM message WHERE id <= {more}"
            )
            written += more
        cursor.execute("ANALYZE TABLE message")
