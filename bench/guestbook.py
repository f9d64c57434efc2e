"""`GET /api/messages` beside a minimal handler, and with few and many rows."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from bench.figure import Figure
from bench.load import Load, best
from tests.services.guestbook.client import PATH, Client, until_ready
from tests.services.guestbook.mysql import MySQL
from tests.services.process import Service, environment

CONNECTIONS = 32
NEWEST = f"{PATH}?page=0&size=20&sort=id,desc"


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
            at_least=0.5,
        )
        loads = {rows: _pages(server, rows) for rows in (100, 1_000_000)}
        for name, few in loads[100].items():
            many = loads[1_000_000][name]
            yield Figure(
                f"{name}, 100 rows against 1,000,000",
                few.rate,
                many.rate,
                "requests/s",
                at_most=1.3,
            )


def _pages(server: MySQL, rows: int) -> dict[str, Load]:
    with _guestbook(server, rows) as service:
        last = (rows - 1) // 20
        return {
            name: best(service.url + query, CONNECTIONS, seconds=2)
            for name, query in {
                "newest page": NEWEST,
                "oldest page": PATH,
                "last page": f"{PATH}?page={last}",
                "middle page": f"{PATH}?page={last // 2}",
                "newest page by timestamp": f"{PATH}?sort=timestamp,desc",
            }.items()
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
