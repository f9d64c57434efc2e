"""The page of each back end's API, as people read it."""

from __future__ import annotations

from urllib.parse import urljoin

import httpx
import pytest
from playwright.sync_api import expect

from tests.support.browser import OpenPage
from tests.support.guestbook import Guestbook


@pytest.mark.parametrize("back_end", ["message", "guestbook"])
def test_the_reference_shows_every_operation(
    services: Guestbook, open_page: OpenPage, back_end: str
) -> None:
    service = getattr(services, back_end)
    document = httpx.get(f"{service.url}/openapi.json").json()
    page = open_page(service, "/docs")
    expect(page.get_by_role("heading", level=1)).to_contain_text(document["info"]["title"])
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            expect(page.get_by_text(f"{method.upper()} {path}", exact=True)).to_be_visible()
            expect(page.get_by_text(operation["description"]).first).to_be_visible()
    for summary in page.locator("summary").all():
        summary.click()
    for operations in document["paths"].values():
        for operation in operations.values():
            for parameter in operation.get("parameters", ()):
                expect(page.get_by_text(parameter["name"]).first).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    link = page.get_by_role("link", name="openapi.json").get_attribute("href")
    assert link is not None
    assert httpx.get(urljoin(page.url, link)).json() == document
    assert page.locator("script").count() == 0
