"""Servers of a test's own, to be broken."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from tests.support.mysql import MySQL


@pytest.fixture
def database(mysql: MySQL) -> str:
    """The name of an empty database of that server."""
    name = f"guestbook_{uuid4().hex}"
    mysql.create(name)
    return name


@pytest.fixture
def breakable_mysql(tmp_path: Path) -> Iterator[MySQL]:
    """A running database server nobody else uses."""
    server = MySQL(tmp_path)
    try:
        yield server
    finally:
        server.stop()
