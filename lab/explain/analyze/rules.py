"""Rules of a VirtualService that no request reaches, as istiod's validation finds them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from lab.explain.analyze.finding import Finding, about
from lab.kinds.virtual_service.types import HTTPMatchRequest, HTTPRoute, StringMatch
from lab.model import Snapshot
from lab.resources.resource import Resource


@dataclass(frozen=True, slots=True)
class _Prefix:
    """A match by the beginning of a path, for the comparison with later ones."""

    rule: int
    match: int
    request: HTTPMatchRequest
    value: str


def unreachable(snapshot: Snapshot) -> Iterator[Finding]:
    """Yields rules that are not used (IST0130), and matches that earlier ones cover (IST0131)."""
    for resource in snapshot.of("VirtualService"):
        yield from _unused(resource)
        yield from _covered(resource)


def _unused(resource: Resource) -> Iterator[Finding]:
    routes: list[HTTPRoute] = resource.spec.http
    seen: dict[str, int] = {}
    catch_all = False
    for index, http in enumerate(routes):
        at = ("spec", "http", index)
        reasons = []
        if not http.match:
            reasons = ["only the last rule can have no matches"] if catch_all else []
            catch_all = True
        elif catch_all:
            reasons = ["route without matches defined before"] * len(http.match)
        else:
            repeated = 0
            for position, request in enumerate(http.match):
                key = request.model_dump_json(exclude={"name"}, exclude_defaults=True)
                if key in seen:
                    repeated += 1
                    other = _rule(routes, seen[key])
                    yield _ineffective(resource, index, position, _match(http, position), other)
                else:
                    seen[key] = index
            reasons = ["all matches used by prior rules"] if repeated == len(http.match) else []
        for reason in reasons:
            text = f"VirtualService rule {_rule(routes, index)} not used ({reason})."
            yield about("IST0130", resource, text, *at)


def _covered(resource: Resource) -> Iterator[Finding]:
    """Yields matches whose prefix begins with that of an earlier, no narrower match."""
    routes: list[HTTPRoute] = resource.spec.http
    prefixes = [
        _Prefix(index, position, request, request.uri.prefix)
        for index, http in enumerate(routes)
        for position, request in enumerate(http.match)
        if request.uri is not None and request.uri.prefix
    ]
    for place, first in enumerate(prefixes):
        for later in prefixes[place + 1 :]:
            if later.value != first.value and _covers(first, later):
                earlier = _match(routes[first.rule], first.match)
                other = f"{earlier} of prefix {first.value} on {_rule(routes, first.rule)}"
                match = f"{_match(routes[later.rule], later.match)} of prefix {later.value}"
                yield _ineffective(resource, later.rule, later.match, match, other)


def _covers(first: _Prefix, later: _Prefix) -> bool:
    one, other = first.request, later.request
    return (
        later.value.startswith(first.value)
        and one.port == other.port
        # A match without a method counts as one for GET, as istiod has it.
        and (_text(one.method) or "exactGET").startswith(_text(other.method) or "exactGET")
        and _text(one.authority).startswith(_text(other.authority))
        and _all_cover(one.headers, other.headers)
        and _all_cover(one.query_params, other.query_params)
        and _all_cover(one.without_headers, other.without_headers)
    )


def _all_cover(
    first: Mapping[str, StringMatch | None], later: Mapping[str, StringMatch | None]
) -> bool:
    return first.keys() == later.keys() and all(
        _text(value).startswith(_text(later[key])) for key, value in first.items()
    )


def _text(match: StringMatch | None) -> str:
    if match is None:
        return ""
    if match.exact:
        return f"exact{match.exact}"
    return f"prefix{match.prefix}" if match.prefix else ""


def _ineffective(resource: Resource, rule: int, match: int, shown: str, other: str) -> Finding:
    text = (
        f"VirtualService rule {_rule(resource.spec.http, rule)} match {shown} is not used "
        f"(duplicate/overlapping match in rule {other})."
    )
    return about("IST0131", resource, text, "spec", "http", rule, "match", match)


def _rule(routes: list[HTTPRoute], index: int) -> str:
    name = routes[index].name
    return f'"{name}"' if name else f"#{index}"


def _match(http: HTTPRoute, index: int) -> str:
    name = http.match[index].name
    return f'"{name}"' if name else f"#{index}"
