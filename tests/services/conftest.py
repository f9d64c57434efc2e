"""Fixtures of the services' tests."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

import pytest

from tests.services.process import Service, environment


class StartService(Protocol):
    def __call__(self, name: str, **settings: object) -> Service:
        """Start `python -m services.<name>` with these variables, and wait until it is ready."""


@pytest.fixture
def start_service() -> Iterator[StartService]:
    """Starts services on free ports of 127.0.0.1; they are stopped when the test ends."""
    with _starter() as start:
        yield start


@pytest.fixture(scope="module")
def start_shared_service() -> Iterator[StartService]:
    """As `start_service`; they are stopped when the last test of the module ends."""
    with _starter() as start:
        yield start


@contextmanager
def _starter() -> Iterator[StartService]:
    started: list[Service] = []

    def start(name: str, **settings: object) -> Service:
        service = Service(name, environment(**settings))
        started.append(service)
        return service

    try:
        yield start
    finally:
        for service in reversed(started):
            service.stop()
