"""OpenAPI: what the guestbook answers is what its document says."""

from __future__ import annotations

from uuid import uuid4

from tests.services.conftest import StartService
from tests.services.guestbook.client import Client, until_ready
from tests.services.guestbook.mysql import MySQL
from tests.services.openapi import check_openapi


def test_every_answer_is_as_described(start_service: StartService, mysql: MySQL) -> None:
    url = mysql.create(f"openapi_{uuid4().hex}")
    with Client(start_service("guestbook", DATABASE_URL=url)) as client:
        until_ready(client)
        for number in range(3):
            client.add(str(number))
        check_openapi(client.service.url)
        for word in ("ERROR", "Traceback"):
            assert word not in client.service.text
        assert client.total(size=1) == len(client.all())
