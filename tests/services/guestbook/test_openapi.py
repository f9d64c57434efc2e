"""The OpenAPI document of the guestbook service against its answers."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

from tests.support.client import PATH, Client, until_ready
from tests.support.mysql import MySQL
from tests.support.openapi import Deviation, check_openapi
from tests.support.service import StartService

ITEM = f"{PATH}/{{id}}"

DEVIATIONS = [
    Deviation(
        "negative_data_rejection",
        "as by Spring Data, a parameter that makes no sense counts as not sent",
        paths=(PATH,),
        methods=("get",),
        statuses=("200", "400"),
    ),
    Deviation(
        "positive_data_acceptance",
        "a sort by message is refused: the document cannot say which strings name it",
        paths=(PATH,),
        methods=("get",),
        statuses=("200", "400"),
    ),
    Deviation(
        "positive_data_acceptance",
        "a key that came before with another message is refused",
        paths=(PATH,),
        methods=("post",),
        statuses=("201", "422"),
    ),
    Deviation(
        "positive_data_acceptance",
        "an entity tag that is not the current one is refused",
        paths=(ITEM,),
        statuses=("2xx", "404", "412"),
    ),
    Deviation(
        "negative_data_rejection",
        "so is a tag that is none at all",
        paths=(ITEM,),
        statuses=("400", "404", "405", "412", "415"),
    ),
    Deviation(
        "ensure_resource_availability",
        "the answer to a key is repeated after its message was deleted",
        paths=(ITEM,),
    ),
]


def test_the_document_has_each_address_with_its_headers(
    start_service: StartService, mysql: MySQL
) -> None:
    url = mysql.create(f"document_{uuid4().hex}")
    with Client(start_service("guestbook", DATABASE_URL=url)) as client:
        document: dict[str, Any] = client.get("/openapi.json").json()
        paths = document["paths"]
        methods = {path: sorted(operations) for path, operations in paths.items()}
        assert methods == {
            PATH: ["get", "post"],
            ITEM: ["delete", "get", "patch", "put"],
            "/api": ["get"],
        }

        def parameters(path: str, method: str) -> set[str]:
            return {each["name"].lower() for each in paths[path][method].get("parameters", ())}

        assert parameters(PATH, "get") == {"page", "size", "sort"}
        assert parameters(PATH, "post") == {"idempotency-key"}
        for method in ("put", "patch", "delete"):
            assert parameters(ITEM, method) == {"id", "if-match"}
        page = client.get("/docs")
        assert page.headers["content-type"].startswith("text/html")
        for word in (PATH, "idempotency-key", "if-match"):
            assert word in page.text.lower()
        assert "<script" not in page.text


def test_every_answer_is_as_documented(start_service: StartService, mysql: MySQL) -> None:
    url = mysql.create(f"openapi_{uuid4().hex}")
    with Client(start_service("guestbook", DATABASE_URL=url)) as client:
        until_ready(client)
        for number in range(3):
            client.add(str(number))
        check_openapi(client.service.url, deviations=DEVIATIONS)
        for word in ("ERROR", "Traceback"):
            assert word not in client.service.text
        assert client.total(size=1) == len(client.all())
