"""Protection of the visitor's browser: headers of every answer, and a check of a post's origin."""

from collections.abc import Awaitable

from starlette.exceptions import HTTPException
from starlette.requests import Request
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


def add_headers(app: ASGIApp, settings: Settings) -> ASGIApp:
    """Adds version, host and the protections that an answer does not set itself."""
    names = {"x-ui-version": settings.demo_version, "x-ui-hostname": settings.hostname}
    values = {name: header_value(value) for name, value in names.items()} | _HEADERS
    always = [(name.encode(), value.encode()) for name, value in values.items()]

    async def handle(scope: Scope, receive: Receive, send: Send) -> None:
        def send_with_headers(message: Message) -> Awaitable[None]:
            if message["type"] == "http.response.start":
                own = {name for name, _ in message["headers"]}
                missing = [header for header in always if header[0] not in own]
                message["headers"] = [*message["headers"], *missing]
            return send(message)

        await app(scope, receive, send_with_headers if scope["type"] == "http" else send)

    return handle


def refuse_other_sites(request: Request) -> None:
    """Raises HTTPException 403 when a browser sent this post for a page of another site.

    `Sec-Fetch-Site` says so where the browser trusts the connection (HTTPS, localhost);
    elsewhere `Origin` does. Gateways keep `Host` or put it into `X-Forwarded-Host`, and neither
    can be set by a page. Clients that are no browsers send none of these.
    """
    site, origin = request.headers.get("sec-fetch-site"), request.headers.get("origin")
    if site is not None:
        ours = site in ("same-origin", "none")
    elif origin is not None:
        hosts = (request.headers.get("host"), _first_forwarded(request, "x-forwarded-host"))
        host = origin.partition("://")[2]
        ours = host != "" and host in hosts
    else:
        ours = True
    if not ours:
        raise HTTPException(403, "The form was sent from another site, so it was not accepted.")


def is_secure(request: Request) -> bool:
    """Returns whether the browser's own connection uses TLS."""
    return "https" in (request.url.scheme, _first_forwarded(request, "x-forwarded-proto"))


def header_value(text: str) -> str:
    """Returns a text for a header: printable ASCII, everything else a question mark."""
    return "".join(c if " " <= c <= "~" else "?" for c in text)[:200]


def _first_forwarded(request: Request, name: str) -> str:
    """Returns the first entry of a forwarded header, which the outermost proxy added."""
    return request.headers.get(name, "").partition(",")[0].strip()
