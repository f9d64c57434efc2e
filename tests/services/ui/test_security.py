"""The protections of the visitor's browser."""

from __future__ import annotations

import re

import httpx
import pytest

from tests.services.ui.backend import Backend, Guestbook
from tests.support.ui import StartUi, Ui


def policy(response: httpx.Response) -> dict[str, str]:
    parts = response.headers["content-security-policy"].split("; ")
    return {part.partition(" ")[0]: part.partition(" ")[2] for part in parts}


@pytest.mark.parametrize("path", ["/", "/nowhere", "/?page=0", "/static/style.css"])
def test_every_answer_carries_its_protections(ui: Ui, path: str) -> None:
    answer = httpx.get(ui.url + path, trust_env=False)
    assert policy(answer)["default-src"] == "'none'"
    assert policy(answer)["frame-ancestors"] == "'none'"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["referrer-policy"] == "same-origin"


@pytest.mark.parametrize("path", ["/", "/nowhere"])
def test_the_policy_of_a_page_allows_its_own_styles_and_no_script(ui: Ui, path: str) -> None:
    first, second = (httpx.get(ui.url + path, trust_env=False) for _ in range(2))
    nonces = [re.findall(r'nonce="([^"]+)"', page.text) for page in (first, second)]
    assert nonces[0] != nonces[1]
    assert policy(first)["style-src"] == f"'self' 'nonce-{nonces[0][0]}'"
    assert "script-src" not in policy(first)
    assert "unsafe" not in first.headers["content-security-policy"]
    assert policy(first)["form-action"] == "'self'"
    assert policy(first)["base-uri"] == "'none'"
    assert " style=" not in first.text
    assert first.headers["cache-control"] == "no-store"


def test_no_asset_is_from_another_host(ui: Ui) -> None:
    page = httpx.get(ui.url, trust_env=False).text
    addresses = re.findall(r'(?:src|href|action)="([^"]*)"', page)
    assert addresses
    assert all(address.startswith(("/", "#")) for address in addresses)
    assert not any(address.startswith("//") for address in addresses)
    for address in addresses:
        if address.startswith("/static/"):
            assert httpx.get(ui.url + address, trust_env=False).status_code == 200


OWN = "{own}"


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"origin": OWN},
        {"sec-fetch-site": "same-origin", "origin": OWN},
        {"sec-fetch-site": "none"},
        {"origin": "https://guestbook.example", "host": "guestbook.example"},
        {"origin": "https://guestbook.example", "x-forwarded-host": "guestbook.example"},
    ],
)
@pytest.mark.parametrize("path", ["/greet", "/logout"])
def test_a_form_of_our_own_is_accepted(ui: Ui, headers: dict[str, str], path: str) -> None:
    headers = {name: value.replace(OWN, ui.url) for name, value in headers.items()}
    answer = httpx.post(ui.url + path, data={"name": "Ada"}, headers=headers, trust_env=False)
    assert answer.status_code == 303


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "https://evil.example"},
        {"origin": "null"},
        {"origin": "https://evil.example", "sec-fetch-site": "cross-site"},
        {"origin": OWN, "sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
        {"origin": OWN + "0"},
        {"origin": ""},
        {"origin": "http://["},
    ],
)
@pytest.mark.parametrize("path", ["/greet", "/logout"])
def test_a_form_of_another_site_is_not(
    ui: Ui, guestbook: Backend, headers: dict[str, str], path: str
) -> None:
    headers = {name: value.replace(OWN, ui.url) for name, value in headers.items()}
    data = {"name": "Ada", "message": "forged"}
    answer = httpx.post(ui.url + path, data=data, headers=headers, trust_env=False)
    assert answer.status_code == 403
    assert "set-cookie" not in answer.headers
    assert guestbook.requests("POST") == []


def test_the_codelabs_style_block_is_in_the_page(ui: Ui) -> None:
    page = httpx.get(ui.url, trust_env=False).text
    assert re.search(r"\n\s*body \{\n\s*padding-top: 80px;\n\s*\}\n", page)
    assert "goldenrod" not in page


def test_the_background_of_the_second_version(start_ui: StartUi, environ: dict[str, str]) -> None:
    second = start_ui(**{**environ, "UI_BACKGROUND": "goldenrod", "DEMO_VERSION": "2.0"})
    answer = httpx.get(second.url, trust_env=False)
    assert "--background: goldenrod;" in answer.text
    assert answer.headers["x-ui-version"] == "2.0"
    assert "ui 2.0" in answer.text


@pytest.mark.parametrize(
    "forwarded",
    [
        {"x-forwarded-host": "guestbook.example, inner.example"},
        {"x-forwarded-host": "guestbook.example,inner.example,10.0.0.1"},
        [("x-forwarded-host", "guestbook.example"), ("x-forwarded-host", "inner.example")],
    ],
)
@pytest.mark.parametrize("path", ["/greet", "/logout"])
def test_the_first_forwarded_host_is_the_one_the_browser_asked(
    ui: Ui, guestbook: Backend, forwarded: dict[str, str] | list[tuple[str, str]], path: str
) -> None:
    def post(origin: str) -> int:
        headers = httpx.Headers(forwarded)
        headers["origin"] = origin
        form = {"name": "Ada", "message": "x"}
        return httpx.post(ui.url + path, data=form, headers=headers, trust_env=False).status_code

    assert post("https://guestbook.example") == 303
    stored = len(guestbook.requests("POST"))
    assert post("https://inner.example") == 403
    assert post("https://guestbook.example, inner.example") == 403
    assert len(guestbook.requests("POST")) == stored


@pytest.mark.parametrize(
    ("forwarded", "secure"),
    [
        (["https,http"], True),
        (["https, http, http"], True),
        (["https", "http"], True),
        (["http,https"], False),
        (["http", "https"], False),
        ([""], False),
    ],
)
def test_the_first_forwarded_protocol_makes_the_cookie_secure(
    ui: Ui, forwarded: list[str], secure: bool
) -> None:
    headers = [("x-forwarded-proto", value) for value in forwarded]
    answer = httpx.post(f"{ui.url}/greet", data={"name": "Ada"}, headers=headers, trust_env=False)
    assert ("Secure" in answer.headers["set-cookie"]) == secure


@pytest.mark.parametrize(
    "forged",
    [
        {"host": "evil.example"},
        {"x-forwarded-host": "evil.example"},
        {"host": "evil.example", "x-forwarded-proto": "https"},
    ],
)
@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/static", 404),
        ("GET", "/static/", 404),
        ("POST", "/static", 404),
        ("GET", "/greet/", 303),
        ("POST", "/greet/", 303),
        ("GET", "/logout/", 303),
        ("POST", "/logout/", 303),
        ("GET", "//evil.example/", 404),
        ("GET", "//evil.example/greet/", 404),
    ],
)
def test_no_redirect_leads_to_a_host_of_the_visitors_choice(
    ui: Ui, stored: Guestbook, forged: dict[str, str], method: str, path: str, status: int
) -> None:
    form = {"name": "Ada", "message": "kept"} if method == "POST" else None
    answer = httpx.request(method, ui.url + path, data=form, headers=forged, trust_env=False)
    assert answer.status_code in (status, 405)
    assert answer.headers.get("location", "/") == "/"
    assert "evil.example" not in answer.text + str(answer.headers)
    assert len(stored.messages) == (path == "/greet/" and method == "POST")
