"""Documents in HAL (application/hal+json), in the shape of Spring Data REST."""

import re
from typing import Annotated, NotRequired
from urllib.parse import quote

from pydantic import Field
from starlette.requests import Request
from typing_extensions import TypedDict

from services.guestbook.models import Message, render_timestamp
from services.guestbook.pages import Page, PageRequest

MEDIA_TYPE = "application/hal+json"
COLLECTION = "/api/messages"

_HOST = re.compile(r"(?:[A-Za-z0-9._~-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?")
_PORT = re.compile(r"[0-9]{1,5}")
_DEFAULT_PORTS = {"http": "80", "https": "443"}


class Link(TypedDict):
    """A link of HAL."""

    href: str
    templated: NotRequired[bool]


class MessageDocument(TypedDict):
    """A message in HAL."""

    username: str | None
    message: str | None
    timestamp: Annotated[str, Field(json_schema_extra={"format": "date-time"})] | None
    _links: dict[str, Link]


class Embedded(TypedDict):
    """The messages of a page."""

    messages: list[MessageDocument]


class PageInfo(TypedDict):
    """The place of a page among all."""

    size: int
    totalElements: int
    totalPages: int
    number: int


class PageDocument(TypedDict):
    """A page of messages in HAL."""

    _embedded: Embedded
    _links: dict[str, Link]
    page: PageInfo


class LinksDocument(TypedDict):
    """A document of HAL that has links alone."""

    _links: dict[str, Link]


def message(stored: Message, base: str) -> MessageDocument:
    """Returns a message, with its link."""
    link: Link = {"href": f"{base}{COLLECTION}/{stored.id}"}
    return {
        "username": stored.username,
        "message": stored.message,
        "timestamp": render_timestamp(stored.timestamp),
        "_links": {"self": link, "message": link},
    }


def page(request: PageRequest, found: Page, base: str) -> PageDocument:
    """Returns a page, with links to itself and to other pages that keep its size and sort."""
    pages = -(-found.total // request.size)
    here, last = request.number, max(pages - 1, 0)
    numbers = {"first": 0, "prev": here - 1, "self": here, "next": here + 1, "last": last}
    if here == 0:
        del numbers["prev"]
    if here >= last:
        del numbers["next"]
    sort = "".join(f"&sort={field},{direction}" for field, direction in request.sort)
    links: dict[str, Link] = {
        name: {"href": f"{base}{COLLECTION}?page={number}&size={request.size}{sort}"}
        for name, number in numbers.items()
    }
    return {
        "_embedded": {"messages": [message(stored, base) for stored in found.messages]},
        "_links": links,
        "page": {
            "size": request.size,
            "totalElements": found.total,
            "totalPages": pages,
            "number": here,
        },
    }


def media_type(request: Request) -> str:
    """Returns `application/json` for a client that asks for it by name and not for HAL, else HAL.

    The charset is for Spring 5.0, which otherwise reads JSON as Latin-1.
    """
    accept = request.headers.get("accept", "")
    plain = "application/json" in accept and MEDIA_TYPE not in accept
    return f"{'application/json' if plain else MEDIA_TYPE};charset=UTF-8"


def base_url(request: Request) -> str:
    """Returns scheme, authority and prefix for links, as the client sees this service.

    The rules are those of Spring's ForwardedHeaderFilter for `X-Forwarded-*`. A header that makes
    no sense counts as not sent; a request without a usable Host gets links without authority,
    which a client resolves against the address it asked.
    """
    headers = request.headers
    # Each proxy adds its own prefix, the outermost first.
    parts = [part.strip().strip("/") for part in headers.get("x-forwarded-prefix", "").split(",")]
    prefix = "".join("/" + quote(part, safe="/-._~!$&'()*+,;=:@%") for part in parts if part)
    host = _first(request, "x-forwarded-host")
    if not _HOST.fullmatch(host):
        host = headers.get("host", "")
    if not _HOST.fullmatch(host):
        return prefix
    port = _first(request, "x-forwarded-port")
    if _PORT.fullmatch(port):
        host = f"{re.sub(':[0-9]+$', '', host)}:{port}"
    scheme = _first(request, "x-forwarded-proto").lower()
    if scheme not in _DEFAULT_PORTS:
        scheme = request.scope["scheme"]
    return f"{scheme}://{host.removesuffix(':' + _DEFAULT_PORTS.get(scheme, ''))}{prefix}"


def _first(request: Request, name: str) -> str:
    return request.headers.get(name, "").partition(",")[0].strip()
