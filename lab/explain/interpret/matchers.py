"""Envoy's matchers of strings, headers, metadata and addresses, on one request.

They read the JSON that Envoy is given. Regular expressions are RE2's, as in Envoy.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import re2

from lab.model import Json
from lab.resources.values import is_ip


class NoAnswerError(ValueError):
    """The request makes no sense here, or the interpreter cannot read the configuration."""


@dataclass(frozen=True, slots=True)
class Request:
    """A request, or a TCP connection, as a proxy receives it."""

    method: str
    """Empty for a TCP connection, CONNECT for one with TLS of the application."""
    authority: str
    path: str
    """With the query; normalized."""
    headers: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """The values of each header, by lower-case name."""
    scheme: str = "http"
    claims: Mapping[str, Any] | None = None
    """The claims of an accepted JSON Web Token; of a question, those given in place of one."""
    port: int = 0
    """The container port at the receiving pod."""
    peer: str | None = None
    """The SPIFFE ID of the client; None in plain text."""
    source_ip: str = ""
    remote_ip: str = ""
    """The client's address by x-forwarded-for; the source's when empty."""
    destination_ip: str = ""
    server_name: str = ""

    def values(self, name: str) -> tuple[str, ...]:
        """Returns each value of a header or a pseudo-header."""
        pseudo = {
            ":method": self.method,
            ":authority": self.authority,
            ":scheme": self.scheme,
            ":path": self.path,
            "host": self.authority,
        }
        key = name.lower()
        return (pseudo[key],) if key in pseudo else self.headers.get(key, ())

    def header(self, name: str) -> str | None:
        """Returns the values of a header as one, None when it is missing."""
        return ",".join(values) if (values := self.values(name)) else None

    @property
    def tcp(self) -> bool:
        """Whether it is a connection, of which a proxy reads no request."""
        return self.method in ("", "CONNECT")

    @property
    def preflight(self) -> bool:
        """Whether it is a CORS preflight."""
        wanted = ("origin", "access-control-request-method")
        return self.method == "OPTIONS" and all(map(self.header, wanted))

    @property
    def bare_path(self) -> str:
        """The path without query and fragment."""
        return re.split("[?#]", self.path, maxsplit=1)[0]


def normalized(path: str, rules: Json) -> str:
    """Returns a path as a connection manager with these fields leaves it.

    `normalize_path` decodes unreserved characters and resolves dots.
    """
    bare, mark, query = path.partition("?")
    if rules.get("path_with_escaped_slashes_action") == "UNESCAPE_AND_FORWARD":
        bare = re.sub("%(?:2f|5c)", "/", bare, flags=re.IGNORECASE)
    if rules.get("normalize_path"):
        bare = _normalized(bare)
    if rules.get("merge_slashes"):
        bare = re.sub("/+", "/", bare)
    return bare + mark + query


def _normalized(bare: str) -> str:
    segments: list[str] = []
    parts = bare.replace("\\", "/").split("/")[1:]
    for index, sent in enumerate(parts):
        part = re.sub(r"%([0-9A-Fa-f]{2})", _decoded, sent)
        last = index == len(parts) - 1
        # Dots may have parameters when they are sent as such, not when they are escaped.
        bare_part = sent.partition(";")[0]
        dots = bare_part if bare_part in (".", "..") else part
        if dots in (".", ".."):
            if dots == ".." and segments:
                segments.pop()
            if last:
                segments.append("")
        else:
            segments.append(part)
    return "/" + "/".join(segments)


def _decoded(found: re.Match[str]) -> str:
    character = chr(int(found[1], 16))
    unreserved = character.isascii() and (character.isalnum() or character in "-._~")
    return character if unreserved else found[0]


def string(matcher: Json, value: str) -> bool:
    """Whether a value passes a StringMatcher."""
    if (pattern := matcher.get("safe_regex")) is not None:
        return full_match(pattern["regex"], value)
    if matcher.get("ignore_case"):
        matcher = {kind: str(text).lower() for kind, text in matcher.items()}
        value = value.lower()
    return (
        ("exact" in matcher and value == matcher["exact"])
        or ("prefix" in matcher and value.startswith(matcher["prefix"]))
        or ("suffix" in matcher and value.endswith(matcher["suffix"]))
        or ("contains" in matcher and matcher["contains"] in value)
    )


def full_match(pattern: str, text: str) -> bool:
    """Whether all of a text matches: Envoy's regular expressions are never searched for."""
    return re2.fullmatch(pattern, text) is not None


def header(matcher: Json, request: Request) -> bool:
    """Whether a request passes a HeaderMatcher, by one of the header's values."""
    return _field(matcher, request.values(matcher["name"]))


def query_parameter(matcher: Json, request: Request) -> bool:
    """Whether a request passes a QueryParameterMatcher; escapes in it are not decoded."""
    query = request.path.partition("?")[2].partition("#")[0]
    pairs = (part.partition("=") for part in query.split("&"))
    found = [value for name, _, value in pairs if name == matcher["name"]]
    return _field(matcher, found[:1])


def _field(matcher: Json, values: Sequence[str]) -> bool:
    """Whether one of the values of a header or a parameter passes its matcher."""
    invert = bool(matcher.get("invert_match"))
    if "string_match" not in matcher:
        if kinds := matcher.keys() - {"name", "invert_match", "present_match"}:
            raise NoAnswerError(f"route does not read the matcher {', '.join(sorted(kinds))}")
        return (bool(values) == bool(matcher.get("present_match", True))) != invert
    if not values and matcher.get("treat_missing_header_as_empty"):
        values = ("",)
    return any(string(matcher["string_match"], value) for value in values) != invert


def metadata(matcher: Json, request: Request) -> bool:
    """Whether a request passes a MetadataMatcher; only a token's claims are known."""
    value: Any = {"payload": request.claims}
    if matcher["filter"] != "envoy.filters.http.jwt_authn":
        value = None
    for segment in matcher["path"]:
        value = value.get(segment["key"]) if isinstance(value, Mapping) else None
    return _value(matcher["value"], value) != bool(matcher.get("invert"))


def _value(matcher: Json, value: Any) -> bool:
    if "present_match" in matcher:
        return (value is not None) == bool(matcher["present_match"])
    if "or_match" in matcher:
        return any(_value(item, value) for item in matcher["or_match"]["value_matchers"])
    if "list_match" in matcher:
        return isinstance(value, list) and any(
            _value(matcher["list_match"]["one_of"], item) for item in value
        )
    return isinstance(value, str) and string(matcher.get("string_match", {}), value)


def within(block: Json, address: str) -> bool:
    """Whether an address is in a CidrRange; a host name, or an unknown address, is in none."""
    network = ipaddress.ip_network(
        f"{block['address_prefix']}/{block.get('prefix_len', 0)}", strict=False
    )
    return is_ip(address) and ipaddress.ip_address(address) in network
