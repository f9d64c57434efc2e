"""Statements on a database of either kind, past the service."""

from __future__ import annotations

from typing import Any

from sqlalchemy import create_engine, text


def execute(url: str, *statements: str) -> None:
    """Run statements in one transaction."""
    engine = create_engine(url)
    with engine.begin() as connection:
        for statement in statements:
            connection.execute(text(statement))
    engine.dispose()


def rows(url: str, query: str) -> list[tuple[Any, ...]]:
    """The rows of a query."""
    engine = create_engine(url)
    with engine.connect() as connection:
        found = [tuple(row) for row in connection.execute(text(query))]
    engine.dispose()
    return found
