"""Documents in HAL (application/hal+json), in the shape of Spring Data REST."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from services.guestbook.models import Message, render_timestamp
from services.guestbook.pages import PageRequest

MEDIA_TYPE = "application/hal+json"
COLLECTION = "/api/messages"

_HOST = re.compile(r"(?:[A-Za-z0-9._~-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?")
_PORT = re.compile(r"[0-9]{1,5}")
_DEFAULT_PORTS = {"http": "80", "https": "443"}


def media_type(accept: str) -> str:
    """Returns `application/json` for a client that asks for it by name and not for HAL, else HAL.

    The charset is for Spring 5.0, which otherwise reads JSON as Latin-1.
    """
    plain = "application/json" in accept and MEDIA_TYPE not in accept
    return f"{'application/json' if plain else MEDIA_TYPE};charset=UTF-8"


def base_url(headers: Mapping[str, str], scheme: str) -> str:
    """Returns scheme, authority and prefix for links, as the client sees this service.

    The rules are those of Spring's ForwardedHeaderFilter for `X-Forwarded-*`; `headers` are by
    lower-case name. A header that makes no sense counts as not sent; a request without a usable
    Host gets links without authority, which a client resolves against the address it asked.
    """
    forwarded_scheme = _first(headers, "x-forwarded-proto").lower()
    if forwarded_scheme in _DEFAULT_PORTS:
        scheme = forwarded_scheme
    host = _first(headers, "x-forwarded-host")
    if not _HOST.fullmatch(host):
        host = headers.get("host", "")
    port = _first(headers, "x-forwarded-port")
    prefix = _prefix(headers.get("x-forwarded-prefix", ""))
    if not _HOST.fullmatch(host):
        return prefix
    if _PORT.fullmatch(port):
        name = re.sub(r":[0-9]+$", "", host)
        host = f"{name}:{port}"
    return f"{scheme}://{host.removesuffix(':' + _DEFAULT_PORTS.get(scheme, ''))}{prefix}"


def message(stored: Message, base: str) -> dict[str, Any]:
    """Returns a message, with its link."""
    link = {"href": f"{base}{COLLECTION}/{stored.id}"}
    return {
        "username": stored.username,
        "message": stored.message,
        "timestamp": render_timestamp(stored.timestamp),
        "_links": {"self": link, "message": link},
    }


def page(request: PageRequest, messages: list[Message], total: int, base: str) -> dict[str, Any]:
    """Returns a page, with links to itself and to other pages that keep its size and sort."""
    sort = "".join(f"&sort={order.field},{order.direction}" for order in request.sort)
    pages = -(-total // request.size)
    last = max(pages - 1, 0)
    numbers = {"first": 0}
    if request.number > 0:
        numbers["prev"] = request.number - 1
    numbers["self"] = request.number
    if request.number < last:
        numbers["next"] = request.number + 1
    numbers["last"] = last
    collection = base + COLLECTION
    links = {
        name: {"href": f"{collection}?page={number}&size={request.size}{sort}"}
        for name, number in numbers.items()
    }
    links["profile"] = {"href": f"{base}/api/profile/messages"}
    return {
        "_embedded": {"messages": [message(stored, base) for stored in messages]},
        "_links": links,
        "page": {
            "size": request.size,
            "totalElements": total,
            "totalPages": pages,
            "number": request.number,
        },
    }


def root(base: str) -> dict[str, Any]:
    """Returns the entry of the API."""
    return {
        "_links": {
            "messages": {"href": f"{base}{COLLECTION}{{?page,size,sort}}", "templated": True},
            "profile": {"href": f"{base}/api/profile"},
        }
    }


def profile(base: str) -> dict[str, Any]:
    """Returns the links to the descriptions."""
    return {
        "_links": {
            "self": {"href": f"{base}/api/profile"},
            "messages": {"href": f"{base}/api/profile/messages"},
        }
    }


def alps(base: str) -> dict[str, Any]:
    """Returns the description of a message (ALPS, application/alps+json)."""
    fields = [{"name": name, "type": "SEMANTIC"} for name in ("username", "message", "timestamp")]
    operations = [
        ("get-messages", "SAFE"),
        ("create-messages", "UNSAFE"),
        ("get-message", "SAFE"),
        ("update-message", "IDEMPOTENT"),
        ("patch-message", "UNSAFE"),
        ("delete-message", "IDEMPOTENT"),
    ]
    described = [
        {"id": name, "name": name.partition("-")[2], "type": kind, "rt": "#message-representation"}
        for name, kind in operations
    ]
    href = f"{base}/api/profile/messages"
    representation = {"id": "message-representation", "href": href, "descriptor": fields}
    return {"alps": {"version": "1.0", "descriptor": [representation, *described]}}


def _first(headers: Mapping[str, str], name: str) -> str:
    return headers.get(name, "").partition(",")[0].strip()


def _prefix(value: str) -> str:
    """Joins the prefixes of a list; each proxy adds its own, the outermost first."""
    parts = (part.strip().strip("/") for part in value.split(","))
    return "".join("/" + quote(part, safe="/-._~!$&'()*+,;=:@%") for part in parts if part)
