"""How Envoy finds the virtual host and the route of a request, in Python.

It reads the same JSON that Envoy is given, so its answer holds for EnvoyFilters too. Regular
expressions are RE2's, as in Envoy.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import re2

from lab.model import Json


@dataclass(frozen=True, slots=True)
class Request:
    """A request as a proxy receives it."""

    method: str
    authority: str
    path: str
    """With the query."""
    headers: Mapping[str, str] = field(default_factory=dict)
    """By lower-case name."""
    scheme: str = "http"
    claims: Mapping[str, Any] | None = None
    """Of an accepted JSON Web Token."""
    connect: bool = False

    def header(self, name: str) -> str | None:
        pseudo = {
            ":method": self.method,
            ":authority": self.authority,
            ":scheme": self.scheme,
            ":path": self.path,
            "host": self.authority,
        }
        return pseudo.get(name.lower(), self.headers.get(name.lower()))


def normalized(path: str) -> str:
    """A path after `normalize_path`: unreserved characters decoded, dot segments resolved."""
    bare, mark, query = path.partition("?")
    bare = re.sub(r"%([0-9A-Fa-f]{2})", _decoded, bare.replace("\\", "/"))
    segments: list[str] = []
    parts = bare.split("/")[1:]
    for index, part in enumerate(parts):
        last = index == len(parts) - 1
        if part in (".", ".."):
            if part == ".." and segments:
                segments.pop()
            if last:
                segments.append("")
        else:
            segments.append(part)
    return "/" + "/".join(segments) + mark + query


def _decoded(found: re.Match[str]) -> str:
    character = chr(int(found[1], 16))
    unreserved = character.isascii() and (character.isalnum() or character in "-._~")
    return character if unreserved else found[0].upper()


def virtual_host(configuration: Json, authority: str) -> Json | None:
    """The virtual host for a host header: exact, then the longest wildcard, then `*`."""
    host = authority.lower()
    if configuration.get("ignore_port_in_host_matching"):
        host = re.sub(r":\d+$", "", host)
    best: tuple[int, int] = (-1, 0)
    found: Json | None = None
    for candidate in configuration["virtual_hosts"]:
        for domain in candidate["domains"]:
            rank = _domain_rank(domain.lower(), host)
            if rank is not None and rank > best:
                best, found = rank, candidate
    return found


def _domain_rank(domain: str, host: str) -> tuple[int, int] | None:
    if domain == "*":
        return (0, 0)
    if domain.startswith("*"):
        return (2, len(domain)) if host.endswith(domain[1:]) and host != domain[1:] else None
    if domain.endswith("*"):
        return (1, len(domain)) if host.startswith(domain[:-1]) and host != domain[:-1] else None
    return (3, 0) if domain == host else None


def route(host: Json, request: Request) -> int | None:
    """The index of the first route of a virtual host that fits; None is a 404."""
    for index, candidate in enumerate(host.get("routes", ())):
        if matches(candidate["match"], request):
            return index
    return None


def matches(match: Json, request: Request) -> bool:
    """Whether a request fits a RouteMatch."""
    return (
        _path(match, request)
        and all(_header(item, request) for item in match.get("headers", ()))
        and all(_query(item, request) for item in match.get("query_parameters", ()))
        and all(_metadata(item, request) for item in match.get("dynamic_metadata", ()))
    )


def _path(match: Json, request: Request) -> bool:
    if "connect_matcher" in match:
        return request.connect
    if request.connect:
        return False
    path = re.split("[?#]", request.path, maxsplit=1)[0]
    if (pattern := match.get("safe_regex")) is not None:
        return full_match(pattern["regex"], path)
    wanted = str(match.get("path", match.get("prefix", "")))
    if match.get("case_sensitive") is False:
        wanted, path = wanted.lower(), path.lower()
    return path == wanted if "path" in match else path.startswith(wanted)


def full_match(pattern: str, text: str) -> bool:
    """RE2's full match, as all of Envoy's regular expressions are."""
    return re2.fullmatch(pattern, text) is not None


def string_matches(matcher: Json, value: str) -> bool:
    """Envoy's StringMatcher."""
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


def _header(matcher: Json, request: Request) -> bool:
    value = request.header(matcher["name"])
    invert = bool(matcher.get("invert_match"))
    if "present_match" in matcher:
        return ((value is not None) == bool(matcher["present_match"])) != invert
    if value is None:
        if not matcher.get("treat_missing_header_as_empty"):
            return invert
        value = ""
    return string_matches(matcher["string_match"], value) != invert


def _query(matcher: Json, request: Request) -> bool:
    value = parameters(request.path).get(matcher["name"])
    if "present_match" in matcher:
        return (value is not None) == bool(matcher["present_match"])
    return value is not None and string_matches(matcher["string_match"], value)


def parameters(path: str) -> dict[str, str]:
    """The first value of each query parameter, as written: Envoy decodes neither."""
    found: dict[str, str] = {}
    query = path.partition("?")[2].partition("#")[0]
    for part in query.split("&") if query else ():
        name, _, value = part.partition("=")
        found.setdefault(name, value)
    return found


def _metadata(matcher: Json, request: Request) -> bool:
    keys = [segment["key"] for segment in matcher["path"]]
    value: Any = {"payload": request.claims} if request.claims is not None else {}
    for key in keys:
        value = value.get(key) if isinstance(value, Mapping) else None
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
    return isinstance(value, str) and string_matches(matcher["string_match"], value)


def server_name_chain(listener: Json, server_name: str) -> Json | None:
    """The filter chain for a TLS server name: exact, longest wildcard, any, else the default."""
    best: tuple[int, int] = (-1, 0)
    found: Json | None = listener.get("default_filter_chain")
    for chain in listener.get("filter_chains", ()):
        for name in chain.get("filter_chain_match", {}).get("server_names") or ["*"]:
            rank = _domain_rank(name, server_name)
            if rank is not None and rank > best:
                best, found = rank, chain
    return found


def by_name(items: Iterable[Json], name: str) -> Json | None:
    return next((item for item in items if item.get("name") == name), None)
