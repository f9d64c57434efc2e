"""TLS to MySQL: taken when the server has it, and checked when the URL names an authority."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.certificate import certificate
from tests.support.client import Client, until_ready, until_unready
from tests.support.mysql import MySQL
from tests.support.service import StartService


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tls")


@pytest.fixture(scope="module")
def secure(folder: Path) -> Iterator[MySQL]:
    """A server that turns away whoever does not use TLS."""
    certificate_file, key = certificate(folder, "server")
    server = MySQL(folder, f"--ssl-cert={certificate_file}", f"--ssl-key={key}")
    try:
        with server.connect() as connection, connection.cursor() as cursor:
            cursor.execute("ALTER USER root@localhost REQUIRE SSL")
        yield server
    finally:
        server.stop()


def test_a_server_that_insists_on_tls_gets_it(start_service: StartService, secure: MySQL) -> None:
    with Client(start_service("guestbook", DATABASE_URL=secure.url())) as client:
        until_ready(client)
        client.add("over TLS")
        assert [message["message"] for message in client.all()] == ["over TLS"]


def test_the_authority_in_the_url_is_asked(
    start_service: StartService, secure: MySQL, folder: Path
) -> None:
    url = f"{secure.url()}?ssl_ca={folder / 'server.pem'}"
    with Client(start_service("guestbook", DATABASE_URL=url)) as client:
        until_ready(client)
        assert client.get().status_code == 200


def test_a_server_of_another_authority_is_refused(
    start_service: StartService, secure: MySQL, folder: Path
) -> None:
    other, _ = certificate(folder, "other")
    service = start_service("guestbook", DATABASE_URL=f"{secure.url()}?ssl_ca={other}")
    with Client(service) as client:
        until_unready(client)
        assert client.get().status_code == 503
    service.wait_for_line("CERTIFICATE_VERIFY_FAILED")
