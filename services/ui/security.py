"""Protection of the visitor's browser: headers of every answer, and a check of a post's origin."""

from __future__ import annotations

from collections.abc import Awaitable

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from services.ui.settings import Settings

_HEADERS = {
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
    # Not "no-referrer": with it, browsers send `Origin: null` on our own form.
    "referrer-policy": "same-origin",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
}


def content_security_policy(nonce: str) -> str:
    """Returns the policy of a page: no script at all; styles of our own or with the nonce."""
    return (
        f"default-src 'none'; style-src 'self' 'nonce-{nonce}'; img-src 'self'; "
        "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    )


def add_headers(app: ASGIApp, settings: Settings) -> ASGIApp:
    """Adds version, host and the protections that an answer does not set itself."""
    texts = {
        "x-ui-version": header_value(settings.demo_version),
        "x-ui-hostname": header_value(settings.hostname),
        **_HEADERS,
    }
    always = [(name.encode(), value.encode()) for name, value in texts.items()]

    async def handle(scope: Scope, receive: Receive, send: Send) -> None:
        def send_with_headers(message: Message) -> Awaitable[None]:
            if message["type"] == "http.response.start":
                own = {name for name, _ in message["headers"]}
                missing = [header for header in always if header[0] not in own]
                message["headers"] = [*message["headers"], *missing]
            return send(message)

        await app(scope, receive, send_with_headers if scope["type"] == "http" else send)

    return handle


def is_from_elsewhere(headers: Headers) -> bool:
    """Returns whether a browser sent this post for a page of another site.

    `Sec-Fetch-Site` says so where the browser trusts the connection (HTTPS, localhost);
    elsewhere `Origin` does. Gateways keep `Host` or put it into `X-Forwarded-Host`, and neither
    can be set by a page. Clients that are no browsers send none of these.
    """
    site = headers.get("sec-fetch-site")
    if site is not None:
        return site not in ("same-origin", "none")
    origin = headers.get("origin")
    if origin is None:
        return False
    host = origin.partition("://")[2]
    hosts = (headers.get("host"), first_forwarded(headers, "x-forwarded-host"))
    return not host or host not in hosts


def first_forwarded(headers: Headers, name: str) -> str:
    """Returns the first entry of a forwarded header, which the outermost proxy added."""
    return headers.get(name, "").partition(",")[0].strip()


def header_value(text: str) -> str:
    """Returns a text for a header: printable ASCII, everything else a question mark."""
    return "".join(c if " " <= c <= "~" else "?" for c in text)[:200]
