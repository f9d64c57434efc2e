"""The guestbook as its visitors use it."""

from __future__ import annotations

import re
from datetime import datetime
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Locator, Page, expect

from tests.support.browser import OpenPage
from tests.support.guestbook import Guestbook
from tests.support.wait import wait

ACCESSIBILITY = (Path(__file__).parent / "accessibility.js").read_text()
SCROLLED = """
e => [e, ...e.querySelectorAll("*")].find(
  part => /auto|scroll/.test(getComputedStyle(part).overflowY)
    && part.scrollHeight > part.clientHeight + 1
)
"""
GOLDENROD = "rgb(218, 165, 32)"
WHITE = "rgb(255, 255, 255)"


def sign(page: Page, name: str, message: str = "") -> None:
    page.get_by_label("Your name").fill(name)
    message_box(page).fill(message)
    page.get_by_role("button", name="Greet").click()


def message_box(page: Page) -> Locator:
    return page.get_by_role("textbox", name="Message")


def texts(page: Page) -> list[str]:
    page.wait_for_load_state()
    return page.locator(".list .text").all_inner_texts()


def count(services: Guestbook) -> int:
    answer = httpx.get(f"{services.guestbook.url}/api/messages", trust_env=False).json()
    return int(answer["page"]["totalElements"])


def test_the_first_visitor_signs_with_the_keyboard(
    services: Guestbook, open_page: OpenPage
) -> None:
    page = open_page(services.ui())
    expect(page.get_by_text("Nobody has signed yet")).to_be_visible()
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the content")).to_be_focused()
    expect(page.get_by_role("link", name="Skip to the content")).to_be_in_viewport()
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    expect(page.get_by_label("Your name")).to_be_focused()
    page.keyboard.type("Ada")
    page.keyboard.press("Tab")
    page.keyboard.type("One hand on the keyboard,\n<b>the other</b> too")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    expect(page.locator("#greeting")).to_have_text(
        "Hello Ada from message-service-545c84c666-nqfx6 with 1.0"
    )
    assert page.url == f"{services.ui().url}/"
    assert texts(page) == ["One hand on the keyboard,\n<b>the other</b> too"]
    expect(page.get_by_text("just now")).to_be_visible()
    expect(page.get_by_text("message-service 1.0", exact=True)).to_be_visible()
    expect(page.get_by_text("ui-6d4cf56db6-x7k2p", exact=True)).to_be_visible()
    expect(page.get_by_label("Your name")).to_have_value("Ada")

    page.get_by_role("button", name="Forget my name").click()
    expect(page.locator("#greeting")).to_have_count(0)
    expect(page.get_by_label("Your name")).to_have_value("")


def test_what_has_the_focus_can_be_seen(services: Guestbook, open_page: OpenPage) -> None:
    page = open_page(services.ui(UI_BACKGROUND="goldenrod", DEMO_VERSION="2.0"))
    for _ in range(5):
        page.keyboard.press("Tab")
        focused = page.locator(":focus")
        style = focused.evaluate("e => [getComputedStyle(e).outlineStyle, e.className]")
        assert style[0] == "solid", style


def test_the_browser_asks_for_a_name(services: Guestbook, open_page: OpenPage) -> None:
    page = open_page(services.ui())
    before = count(services)
    sign(page, "", "nobody")
    assert page.url == f"{services.ui().url}/"
    expect(page.get_by_label("Your name")).to_be_focused()
    expect(message_box(page)).to_have_value("nobody")
    assert count(services) == before


def test_a_double_click_is_one_message(services: Guestbook, open_page: OpenPage) -> None:
    page = open_page(services.ui())
    before = count(services)
    page.get_by_label("Your name").fill("Ada")
    message_box(page).fill("click click")
    # The second click may cut off the navigation of the first, so no navigation is waited for.
    page.get_by_role("button", name="Greet").dblclick(no_wait_after=True)
    expect(page.locator("#greeting")).to_be_visible()
    page.wait_for_load_state("networkidle")
    assert count(services) == before + 1


def test_a_message_survives_the_guestbook_being_away(
    services: Guestbook, open_page: OpenPage
) -> None:
    page = open_page(services.ui())
    sign(page, "Grace")
    before = count(services)
    services.guestbook.stop()
    message_box(page).fill("Keep\nthis")
    page.get_by_role("button", name="Greet").click()
    expect(page.get_by_role("alert")).to_contain_text("could not be stored")
    expect(page.get_by_text("Guestbook Service is currently unavailable")).to_be_visible()
    expect(message_box(page)).to_have_value("Keep\nthis")
    expect(page.locator("#greeting")).to_contain_text("Hello Grace")
    assert page.evaluate(ACCESSIBILITY) == []
    services.restart_guestbook()
    page.get_by_role("button", name="Send it again").click()
    expect(page.get_by_role("alert")).to_have_count(0)
    assert texts(page)[0] == "Keep\nthis"
    assert count(services) == before + 1


def test_a_message_has_the_time_at_which_its_form_was_opened(
    services: Guestbook, open_page: OpenPage
) -> None:
    page = open_page(services.ui())
    opened = page.locator("form input[name=time]").get_attribute("value")
    sign(page, "Ada", "when the page was opened")
    shown = page.locator(".list time").first.get_attribute("datetime")
    assert opened
    assert shown
    assert datetime.fromisoformat(shown) == datetime.fromisoformat(opened)


@pytest.mark.parametrize("width", [320, 1280])
def test_a_message_of_empty_lines_takes_no_more_room_than_another(
    services: Guestbook, open_page: OpenPage, width: int
) -> None:
    page = open_page(services.ui(), width=width)
    cards = page.locator(".list .message")
    for word, empty in (("one", "\n\n"), ("two", "\n" * 100), ("six", "\n" * 1990)):
        sign(page, "Ada", f"{word}{empty}below")
        expect(cards.first.locator(".text")).to_have_text(f"{word} below")
    assert texts(page)[:3] == ["six\n\nbelow", "two\n\nbelow", "one\n\nbelow"]
    boxes = [card.bounding_box() for card in cards.all()[:3]]
    heights = {box["height"] for box in boxes if box}
    assert len(heights) == 1
    assert heights.pop() < 200


@pytest.mark.parametrize("width", [320, 1280])
def test_a_long_message_scrolls_in_its_card(
    services: Guestbook, open_page: OpenPage, width: int
) -> None:
    page = open_page(services.ui(), width=width)
    lines = [f"line {number}" for number in range(200)]
    sign(page, "Ada", "\n".join(lines))
    card = page.locator(".list .message").first
    expect(card.locator(".text")).to_contain_text(lines[0])
    scrolled = card.evaluate_handle(SCROLLED).as_element()
    assert scrolled
    box = scrolled.bounding_box()
    assert box
    assert 200 < box["height"] <= 24 * 16
    last = scrolled.evaluate("e => e.scrollHeight - e.clientHeight")
    assert last > 2000

    def position() -> float:
        return float(scrolled.evaluate("e => e.scrollTop"))

    scrolled.hover()
    page.mouse.wheel(0, 100_000)
    wait(lambda: position() >= last - 1, "the mouse to reach the last line")
    page.mouse.wheel(0, -100_000)
    wait(lambda: position() == 0, "the mouse to reach the first line")
    while not scrolled.evaluate("e => e === document.activeElement"):
        page.keyboard.press("Tab")
        assert page.locator(":focus").count() == 1
    page.keyboard.press("End")
    wait(lambda: position() >= last - 1, "the keyboard to reach the last line")
    assert page.evaluate(ACCESSIBILITY) == []


def test_leafing_through_the_messages(services: Guestbook, open_page: OpenPage) -> None:
    for number in range(45):
        entry = {"username": f"Guest {number % 7}", "message": f"leaf {number}"}
        httpx.post(f"{services.guestbook.url}/api/messages", json=entry, trust_env=False)
    total = count(services)
    pages = -(-total // 20)
    page = open_page(services.ui())
    seen = texts(page)
    for number in range(2, pages + 1):
        page.get_by_role("link", name="Older").click()
        expect(page.get_by_text(f"Page {number} of {pages}")).to_be_visible()
        seen += texts(page)
    expect(page.get_by_role("link", name="Older")).to_have_count(0)
    assert len(seen) == total
    assert seen[:45] == [f"leaf {number}" for number in reversed(range(45))]
    page.get_by_role("link", name="Newer").click()
    expect(page.get_by_text(f"Page {pages - 1} of {pages}")).to_be_visible()
    page.get_by_role("link", name="Guestbook", exact=True).click()
    expect(page.get_by_text(f"Page 1 of {pages}")).to_be_visible()
    assert texts(page) == [f"leaf {number}" for number in range(44, 24, -1)]


@pytest.mark.parametrize(
    ("settings", "background"),
    [({}, WHITE), ({"UI_BACKGROUND": "goldenrod", "DEMO_VERSION": "2.0"}, GOLDENROD)],
    ids=["v1", "v2"],
)
def test_the_background_tells_the_versions_apart(
    services: Guestbook, open_page: OpenPage, settings: dict[str, str], background: str
) -> None:
    page = open_page(services.ui(**settings))
    expect(page.locator("body")).to_have_css("background-color", background)
    expect(page.locator("body")).to_have_css("padding-top", "80px")
    version = settings.get("DEMO_VERSION", "1.0")
    expect(page.get_by_text(f"ui {version}", exact=True)).to_be_visible()


@pytest.mark.parametrize(
    ("width", "background"), [(320, None), (390, "goldenrod"), (1280, "navy"), (1280, None)]
)
def test_everybody_can_read_it(
    services: Guestbook, open_page: OpenPage, width: int, background: str | None
) -> None:
    settings = {"UI_BACKGROUND": background} if background else {}
    for name, message in [
        ("W" * 100, "Supercalifragilistic" * 50),
        ("شذى", "مرحبا <script>alert(1)</script> שלום"),
        ("👩‍👩‍👧‍👦", "🎉" * 200),
    ]:
        page = open_page(services.ui(**settings), width=width, height=844)
        sign(page, name, message)
        expect(page.locator("#greeting")).to_contain_text(name)
        assert texts(page)[0] == message
        assert page.evaluate(ACCESSIBILITY) == []
    page = open_page(services.ui(**settings), "/?page=999", width=width, height=844)
    assert page.evaluate(ACCESSIBILITY) == []


def test_the_error_page_is_readable_too(services: Guestbook, open_page: OpenPage) -> None:
    page = open_page(services.ui(), "/nowhere")
    expect(page.get_by_role("heading", name="Not Found")).to_be_visible()
    expect(page.locator("#request-id")).to_have_text(re.compile("[0-9a-f-]{36}"))
    assert page.evaluate(ACCESSIBILITY) == []
    page.get_by_role("link", name="To the guestbook").click()
    assert page.url == f"{services.ui().url}/"
