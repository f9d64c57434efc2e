"""Ways to a Redis that asks for a password or speaks TLS, as a managed one does."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest

from tests.services.ui.backend import Backend
from tests.support.certificate import certificate
from tests.support.page import read
from tests.support.redis import RedisServer
from tests.support.ui import StartUi, Ui

PASSWORD = "p@ss/wörd:%41 #1"


def started(server: RedisServer) -> Iterator[RedisServer]:
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("access")


@pytest.fixture(scope="module")
def locked(folder: Path) -> Iterator[RedisServer]:
    yield from started(RedisServer(folder, password=PASSWORD))


@pytest.fixture(scope="module")
def trusted(folder: Path) -> tuple[Path, Path]:
    return certificate(folder, "redis")


@pytest.fixture(scope="module")
def secure(folder: Path, trusted: tuple[Path, Path]) -> Iterator[RedisServer]:
    yield from started(RedisServer(folder, PASSWORD, trusted))


@pytest.fixture(scope="module")
def misnamed(folder: Path) -> Iterator[RedisServer]:
    """A Redis with the certificate of another address."""
    made = certificate(folder, "misnamed", "127.0.0.9")
    yield from started(RedisServer(folder, certificate=made))


@pytest.fixture
def settings(environ: dict[str, str], message: Backend, guestbook: Backend) -> dict[str, str]:
    """The settings of a ui without those of its Redis."""
    return {name: value for name, value in environ.items() if not name.startswith("REDIS_")}


def works(ui: Ui) -> bool:
    """Whether a visitor is remembered; readiness must say the same, and ends the ui."""
    with ui.browser() as browser:
        browser.post("/greet", data={"name": "Ada"})
        page = read(browser.get("/"))
    greeted = page.greeting == "Hello Ada from message-1 with 1.0"
    assert page.sessions_work == greeted == ui.ready()
    ui.stop()
    for secret in (PASSWORD, quote(PASSWORD, safe=""), "pass/word"):
        assert secret not in ui.text
    return greeted


def test_a_password(start_ui: StartUi, settings: dict[str, str], locked: RedisServer) -> None:
    address = {"REDIS_HOST": "127.0.0.1", "REDIS_PORT": locked.port}
    assert works(start_ui(**settings, **address, REDIS_PASSWORD=PASSWORD))
    assert not works(start_ui(**settings, **address))
    wrong = start_ui(**settings, **address, REDIS_PASSWORD="pass/word")
    assert not works(wrong)
    assert "Sessions are unavailable" in wrong.text


def test_a_password_in_a_file(
    start_ui: StartUi, settings: dict[str, str], locked: RedisServer, tmp_path: Path
) -> None:
    address = {"REDIS_HOST": "127.0.0.1", "REDIS_PORT": locked.port}
    file = tmp_path / "password"
    file.write_text(PASSWORD + "\n", encoding="utf-8")
    assert works(start_ui(**settings, **address, REDIS_PASSWORD_FILE=file))


def test_a_url_wins_over_the_other_settings(
    start_ui: StartUi, settings: dict[str, str], locked: RedisServer
) -> None:
    others = {
        "REDIS_HOST": "nowhere.invalid",
        "REDIS_PORT": 1,
        "REDIS_PASSWORD": "wrong",
        "REDIS_TLS": "true",
    }
    url = f"redis://default:{quote(PASSWORD, safe='')}@127.0.0.1:{locked.port}/3"
    locked.ask("FLUSHALL")
    ui = start_ui(**settings, **others, REDIS_URL=url)
    assert works(ui)
    assert locked.ask("DBSIZE") == ":0"
    assert locked.ask("SWAPDB", "0", "3") == "+OK"
    assert int(locked.ask("DBSIZE")[1:]) >= 1


def test_tls(
    start_ui: StartUi,
    settings: dict[str, str],
    secure: RedisServer,
    trusted: tuple[Path, Path],
) -> None:
    settings = {**settings, "REDIS_PASSWORD": PASSWORD}
    address = {"REDIS_HOST": "127.0.0.1", "REDIS_PORT": secure.port, "REDIS_TLS": "true"}
    assert works(start_ui(**settings, **address, SSL_CERT_FILE=trusted[0]))
    unknown = start_ui(**settings, **address)
    assert not works(unknown)
    assert "CERTIFICATE_VERIFY_FAILED" in unknown.text
    plain = {**address, "REDIS_TLS": "false", "SSL_CERT_FILE": trusted[0]}
    assert not works(start_ui(**settings, **plain))


def test_tls_in_a_url(
    start_ui: StartUi,
    settings: dict[str, str],
    secure: RedisServer,
    misnamed: RedisServer,
    trusted: tuple[Path, Path],
    folder: Path,
) -> None:
    password = quote(PASSWORD, safe="")
    url = f"rediss://:{password}@127.0.0.1:{secure.port}"
    assert works(start_ui(**settings, REDIS_URL=f"{url}?ssl_ca_certs={trusted[0]}"))
    assert not works(start_ui(**settings, REDIS_URL=url))
    other = f"rediss://127.0.0.1:{misnamed.port}?ssl_ca_certs={folder / 'misnamed.pem'}"
    assert not works(start_ui(**settings, REDIS_URL=other))
