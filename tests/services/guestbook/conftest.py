"""The guestbook service as a process, on SQLite and on a private MySQL-compatible server."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from tests.support.client import Client, until_ready
from tests.support.mysql import MySQL
from tests.support.service import StartService


@pytest.fixture(params=["sqlite", "mysql"], scope="module")
def database_url(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str:
    """An empty database of each kind."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path_factory.mktemp('sqlite') / 'guestbook.db'}"
    server: MySQL = request.getfixturevalue("mysql")
    return server.create(f"guestbook_{uuid4().hex}")


@pytest.fixture(params=["sqlite", "mysql"])
def new_database(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of an empty database nobody else uses."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'guestbook.db'}"
    server: MySQL = request.getfixturevalue("mysql")
    return server.create(f"guestbook_{uuid4().hex}")


@pytest.fixture(scope="module")
def guestbook(start_shared_service: StartService, database_url: str) -> Iterator[Client]:
    """A running guestbook, shared by the tests of a module."""
    service = start_shared_service("guestbook", DATABASE_URL=database_url, HOSTNAME="guestbook-1")
    with Client(service) as client:
        until_ready(client)
        yield client


@pytest.fixture
def empty(guestbook: Client) -> Client:
    """The running guestbook, without messages."""
    while messages := guestbook.get(params={"size": 1000}).json()["_embedded"]["messages"]:
        for message in messages:
            guestbook.http.delete(message["_links"]["self"]["href"])
    return guestbook
