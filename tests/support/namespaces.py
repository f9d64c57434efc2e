"""Functions run in a forked child that is master of namespaces of its own."""

from __future__ import annotations

import os
import pickle
import traceback
from collections.abc import Callable
from functools import cache
from typing import TypeVar

import pytest

from lab.net import detect, namespaces

T = TypeVar("T")


@cache
def _refusal() -> detect.Refusal | None:
    return detect.refusal()


REFUSED = "no networks for pods here: "
"""The beginning of the reason of a skipped test."""


def require_namespaces() -> None:
    """Skips the test, with the machine's reason, where pods can have no networks."""
    if (refused := _refusal()) is not None:
        pytest.skip(f"{REFUSED}{refused.reason}")


def isolated(function: Callable[[], T]) -> T:
    """Returns the result of a function of a child with namespaces of its own."""
    require_namespaces()
    reader, writer = os.pipe()
    if (child := os.fork()) == 0:
        try:
            os.close(reader)
            namespaces.become_master()
            outcome: tuple[bool, object] = (True, function())
        except BaseException:
            outcome = (False, traceback.format_exc())
        with os.fdopen(writer, "wb") as pipe:
            pipe.write(pickle.dumps(outcome))
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        ok, value = pickle.loads(pipe.read())
    os.waitpid(child, 0)
    assert ok, value
    result: T = value
    return result
