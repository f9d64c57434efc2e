"""Rules and fixtures for the whole suite."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest
from hypothesis import settings

from tests.support.mysql import MySQL
from tests.support.namespaces import REFUSED
from tests.support.service import StartService, starter

# In CI every run has the same examples, so that a failure there is not one of luck.
settings.register_profile("ci", derandomize=True, print_blob=True)
if os.environ.get("CI") == "true":
    settings.load_profile("ci")

# Tests may be started in a shell of the lab (`guestbook env`), where commands refuse a cluster.
os.environ.pop("GUESTBOOK_ENV", None)

# A shell has what it starts with `&` ignore Ctrl-C, and that would be handed down to every command
# that a test ends with Ctrl-C.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """In CI (`CI=true`) a skipped test fails the run: all that a test needs is installed there.

    Networks of pods can't be installed: their tests are skipped where the kernel refuses them.
    """
    if os.environ.get("CI") != "true" or hasattr(session.config, "workerinput"):
        return
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if reporter is None:
        return
    skipped = [
        each for each in reporter.stats.get("skipped", []) if REFUSED not in str(each.longrepr)
    ]
    if skipped and session.exitstatus == pytest.ExitCode.OK:
        reporter.write_line(f"{len(skipped)} tests were skipped; in CI none may be", red=True)
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


@pytest.fixture
def start_service() -> Iterator[StartService]:
    """Starts services; they are stopped when the test ends."""
    with starter() as start:
        yield start


@pytest.fixture(scope="module")
def start_shared_service() -> Iterator[StartService]:
    """Starts services; they are stopped when the last test of the module ends."""
    with starter() as start:
        yield start


@pytest.fixture(scope="session")
def mysql(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MySQL]:
    """A running server; tests that stop it use one of their own."""
    server = MySQL(tmp_path_factory.mktemp("mysql"))
    try:
        yield server
    finally:
        server.stop()
