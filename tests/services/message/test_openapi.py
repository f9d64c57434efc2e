"""The OpenAPI document of the message service against its answers."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from tests.support.openapi import Deviation, check_openapi
from tests.support.service import Service, StartService

HELLO, SWITCHES = "/hello/{name}", ("/misbehave", "/behave")

DEVIATIONS = [
    Deviation(
        "unsupported_method",
        "any method turns the switches, as in the original; the document has the one for people",
        paths=SWITCHES,
    ),
    Deviation(
        "negative_data_rejection",
        "a name that is too long is one of 414, which schemathesis does not expect of a refusal",
        paths=(HELLO,),
        statuses=("400", "404", "405", "414"),
    ),
]


@pytest.fixture(scope="module")
def message(start_shared_service: StartService) -> Service:
    return start_shared_service("message")


@pytest.fixture(scope="module")
def document(message: Service) -> dict[str, Any]:
    document: dict[str, Any] = httpx.get(f"{message.url}/openapi.json").json()
    return document


def test_the_document_has_each_address_and_no_other(document: dict[str, Any]) -> None:
    assert document["paths"].keys() == {HELLO, *SWITCHES}
    parameters = document["paths"]["/misbehave"]["get"]["parameters"]
    assert [parameter["name"] for parameter in parameters] == ["status", "percent", "delay", "for"]
    assert all(parameter["description"] for parameter in parameters)


def check(message: Service, document: dict[str, Any], *paths: str, asked_for: int = 200) -> None:
    """Checks these addresses alone: a delay that one sets would stall the others."""
    only = {**document, "paths": {path: document["paths"][path] for path in paths}}
    deviations = list(DEVIATIONS)
    if asked_for >= 500:
        reason = "`/misbehave` asked for it"
        statuses = ("2xx", "4xx", str(asked_for))
        deviations.append(Deviation("not_a_server_error", reason, paths=paths, statuses=statuses))
    check_openapi(message.url, only, deviations=deviations)
    assert "Traceback" not in message.text


def test_greetings_are_as_documented(message: Service, document: dict[str, Any]) -> None:
    httpx.get(f"{message.url}/behave")
    check(message, document, HELLO)


@pytest.mark.parametrize("status", [409, 503])
def test_refusals_of_a_pod_that_misbehaves_are_as_documented(
    message: Service, document: dict[str, Any], status: int
) -> None:
    httpx.get(f"{message.url}/misbehave?status={status}")
    check(message, document, HELLO, asked_for=status)


def test_the_switches_are_as_documented(message: Service, document: dict[str, Any]) -> None:
    check(message, document, *SWITCHES)
