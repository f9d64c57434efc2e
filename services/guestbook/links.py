"""Absolute links, as the client sees this service: Host, and what proxies forwarded.

The rules are those of Spring's ForwardedHeaderFilter for `X-Forwarded-*`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from urllib.parse import quote

_HOST = re.compile(r"(?:[A-Za-z0-9._~-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?")
_PORT = re.compile(r"[0-9]{1,5}")
_DEFAULT_PORTS = {"http": "80", "https": "443"}


def base_url(headers: Mapping[str, str], scheme: str) -> str:
    """Scheme, authority and prefix for links; `headers` by lower-case name.

    A header that makes no sense counts as not sent; a request without a usable Host gets links
    without authority, which a client resolves against the address it asked.
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


def _first(headers: Mapping[str, str], name: str) -> str:
    return headers.get(name, "").partition(",")[0].strip()


def _prefix(value: str) -> str:
    """Each proxy adds its prefix to the list, the outermost first."""
    parts = (part.strip().strip("/") for part in value.split(","))
    return "".join("/" + quote(part, safe="/-._~!$&'()*+,;=:@%") for part in parts if part)
