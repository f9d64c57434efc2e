"""Rules and matches of a VirtualService without effect, as istiod's validation finds them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations

from lab.kinds.virtual_service.types import (
    HTTPMatchRequest,
    HTTPRoute,
    StringMatch,
    TCPRoute,
    TLSRoute,
    VirtualServiceSpec,
)
from lab.resources.resource import Path

Rules = Sequence[HTTPRoute | TCPRoute | TLSRoute]


@dataclass(frozen=True, slots=True)
class Unused:
    """A rule, or a match of one, that has no effect."""

    path: Path
    """Its place in the spec."""
    text: str
    """In istiod's words, but for the kind at their beginning."""
    one_match: bool
    """Whether it is a match, and the rule may have others."""


def unused(spec: VirtualServiceSpec) -> Iterator[Unused]:
    """Yields what no request reaches."""
    lists: tuple[tuple[str, Rules], ...] = (
        ("http", spec.http),
        ("tcp", spec.tcp),
        ("tls", spec.tls),
    )
    for kind, rules in lists:
        yield from _of_list(kind, rules)
    yield from _covered(spec.http)


def _of_list(kind: str, rules: Rules) -> Iterator[Unused]:
    """Yields rules after one for everything, and matches that an earlier rule has."""
    seen: dict[str, int] = {}
    catch_all = False
    for index, rule in enumerate(rules):
        where: Path = (kind, index)
        shown = _rule(rules, index)
        if not rule.match and catch_all:
            yield Unused(where, _not_used(shown, "only the last rule can have no matches"), False)
        catch_all = catch_all or not rule.match
        repeated = 0
        for position, match in enumerate(rule.match):
            path = (*where, "match", position)
            key = match.model_dump_json(exclude={"name"})
            if catch_all:
                yield Unused(path, _not_used(shown, "route without matches defined before"), False)
            elif key in seen:
                repeated += 1
                name = _named(getattr(match, "name", None), position)
                yield _overlap(path, shown, name, _rule(rules, seen[key]))
            else:
                seen[key] = index
        if rule.match and repeated == len(rule.match):
            yield Unused(where, _not_used(shown, "all matches used by prior rules"), False)


def _covered(rules: Sequence[HTTPRoute]) -> Iterator[Unused]:
    """Yields matches whose prefix begins with that of an earlier, no narrower match."""
    seen: set[str] = set()
    prefixes: list[tuple[int, int, HTTPMatchRequest]] = []
    for index, rule in enumerate(rules):
        if not rule.match:
            break  # Of the rules after one for everything, that is said already.
        for position, match in enumerate(rule.match):
            key = match.model_dump_json(exclude={"name"})
            if key not in seen and _prefix(match):
                prefixes.append((index, position, match))
            seen.add(key)
    for (index, position, first), (later, place, second) in combinations(prefixes, 2):
        if _covers(first, second):
            shown, other = (
                f"{_named(match.name, number)} of prefix {_prefix(match)}"
                for number, match in ((place, second), (position, first))
            )
            earlier = f"{other} on {_rule(rules, index)}"
            yield _overlap(("http", later, "match", place), _rule(rules, later), shown, earlier)


def _rule(rules: Rules, index: int) -> str:
    return _named(getattr(rules[index], "name", None), index)


def _named(name: str | None, index: int) -> str:
    return f'"{name}"' if name else f"#{index}"


def _not_used(rule: str, reason: str) -> str:
    return f"rule {rule} not used ({reason})"


def _overlap(path: Path, rule: str, match: str, earlier: str) -> Unused:
    text = f"rule {rule} match {match} is not used (duplicate/overlapping match in rule {earlier})"
    return Unused(path, text, True)


def _prefix(match: HTTPMatchRequest) -> str:
    return (match.uri.prefix if match.uri else None) or ""


def _covers(first: HTTPMatchRequest, second: HTTPMatchRequest) -> bool:
    """Returns whether istiod takes the prefix of a match to be covered by an earlier one."""
    one, other = _prefix(first), _prefix(second)
    if one == other or not other.startswith(one):
        return False
    if (first.port or 0) != (second.port or 0):
        return False
    return all(
        mine.keys() == theirs.keys() and all(mine[key].startswith(theirs[key]) for key in mine)
        for mine, theirs in zip(_conditions(first), _conditions(second), strict=True)
    )


def _conditions(match: HTTPMatchRequest) -> list[dict[str, str]]:
    plain = {"method": match.method, "authority": match.authority}
    conditions = [
        {name: _spelled(value) for name, value in found.items()}
        for found in (plain, match.headers, match.query_params, match.without_headers)
    ]
    conditions[0]["method"] = conditions[0]["method"] or "exact:GET"
    return conditions


def _spelled(match: StringMatch | None) -> str:
    if match is not None and match.exact:
        return f"exact:{match.exact}"
    return f"prefix:{match.prefix}" if match is not None and match.prefix else ""
