"""Delegation: the rules of a root VirtualService, with those of its delegates in their places."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from typing import Any

from lab import names
from lab.kinds.services import exported
from lab.kinds.types import Destination
from lab.kinds.virtual_service.types import (
    Delegate,
    HTTPMatchRequest,
    HTTPRoute,
    StringMatch,
)
from lab.model import Snapshot
from lab.resources.resource import Origin, Path, Problem, Resource

_INHERITED = (
    "rewrite",
    "direct_response",
    "timeout",
    "retries",
    "fault",
    "mirror",
    "mirror_percent",
    "mirror_percent_snake",
    "mirror_percentage",
    "cors_policy",
    "headers",
)
"""The fields that a delegate's rule takes from the root's where it has none of its own."""


@dataclass(frozen=True, slots=True)
class Rule:
    """An HTTP rule of a VirtualService, its own or a delegate's."""

    http: HTTPRoute
    origin: Origin
    """The rule in the VirtualService that it stands in."""
    matches: tuple[tuple[HTTPMatchRequest | None, Origin], ...]
    """Each match with its place; one None for a rule without any."""


def rules(snapshot: Snapshot, resource: Resource) -> Iterator[Rule]:
    """Yields the rules of a VirtualService in their order.

    In the place of a rule that delegates are those of the delegate, as far as they agree with it.
    """
    for index, http in enumerate(resource.spec.http):
        if http.delegate is None:
            origin = Origin(resource.source, ("spec", "http", index), resource)
            yield Rule(http, origin, (*_places(http.match, origin),) or ((None, origin),))
        elif (delegate := _delegate(snapshot, resource, http.delegate)) is not None:
            for _, merged in _merged(resource, http, delegate):
                if isinstance(merged, Rule):
                    yield merged


def problems(resource: Resource, snapshot: Snapshot) -> Iterator[Problem]:
    """Yields a warning for each rule that delegates in vain, of which istiod's log alone tells."""
    for index, http in enumerate(resource.spec.http):
        if http.delegate is None:
            continue
        path: Path = ("spec", "http", index, "delegate")
        delegate = _delegate(snapshot, resource, http.delegate)
        if delegate is None:
            where = f"{http.delegate.namespace or resource.namespace}/{http.delegate.name or ''}"
            reason = f"no VirtualService {where} without hosts is exported to {resource.namespace}"
            yield Problem(path, f"this rule is dropped, because {reason}", "warning")
            continue
        for origin, merged in _merged(resource, http, delegate):
            if isinstance(merged, str):
                yield Problem(path, f"rule {origin} is dropped, because {merged}", "warning")


def _delegate(snapshot: Snapshot, root: Resource, named: Delegate) -> Resource | None:
    """Returns the delegate of a rule, if it exists, has no hosts and is exported to the root."""
    wanted = (named.namespace or root.namespace, named.name)
    return next(
        (
            found
            for found in snapshot.of("VirtualService")
            if (found.namespace, found.name) == wanted
            and not found.spec.hosts
            and exported(found.spec.export_to, found.namespace, root.namespace)
        ),
        None,
    )


def _merged(
    root: Resource, http: HTTPRoute, delegate: Resource
) -> Iterator[tuple[Origin, Rule | str]]:
    """Yields the place of each rule of a delegate, and that rule within the root's.

    In its place is the reason when one of its matches is not within a match of the root's.
    """
    for index, own in enumerate(delegate.spec.http):
        origin = Origin(delegate.source, ("spec", "http", index), delegate)
        matches = _within(
            [_bound(match, root.namespace) for match in http.match],
            [
                (_bound(match, delegate.namespace), place)
                for match, place in _places(own.match, origin)
            ],
            origin,
        )
        if isinstance(matches, str):
            yield origin, matches
            continue
        rule = _with_fields_of(http, own, delegate.namespace)
        rule = rule.model_copy(update={"match": [match for match, _ in matches]})
        yield origin, Rule(rule, origin, (*matches,) or ((None, origin),))


def _places(
    matches: list[HTTPMatchRequest], origin: Origin
) -> Iterator[tuple[HTTPMatchRequest, Origin]]:
    for index, match in enumerate(matches):
        path = (*origin.path, "match", index)
        yield match, Origin(origin.source, path, origin.resource)


def _within(
    roots: list[HTTPMatchRequest], own: list[tuple[HTTPMatchRequest, Origin]], origin: Origin
) -> list[tuple[HTTPMatchRequest, Origin]] | str:
    """Returns the matches that are a root's and a delegate's, or why one is not a root's."""
    if not own:
        return [(root, origin) for root in roots]
    if not roots:
        return own
    result = []
    for match, place in own:
        conflicts = [_conflict(root, match) for root in roots]
        agreed = [root for root, reason in zip(roots, conflicts, strict=True) if reason is None]
        if not agreed:
            return f"its match at {place} is not within this rule's: {conflicts[0]}"
        result += [(_both(root, match), place) for root in agreed]
    return result


def _with_fields_of(root: HTTPRoute, own: HTTPRoute, namespace: str) -> HTTPRoute:
    """Returns a delegate's rule with what it takes from the root's, and its hosts in full."""
    update: dict[str, Any] = {
        field: getattr(root, field) for field in _INHERITED if getattr(own, field) is None
    }
    if own.mirror is not None:
        update["mirror"] = _in_full(own.mirror, namespace)
    for field in ("route", "mirrors"):
        update[field] = [
            entry.model_copy(update={"destination": _in_full(entry.destination, namespace)})
            for entry in getattr(own, field)
        ]
    update["mirrors"] = update["mirrors"] or root.mirrors
    update["name"] = "-".join(filter(None, (root.name, own.name))) or None
    return own.model_copy(update=update)


def _in_full(destination: Destination, namespace: str) -> Destination:
    return destination.model_copy(update={"host": names.expand(destination.host, namespace)})


def _bound(match: HTTPMatchRequest, namespace: str) -> HTTPMatchRequest:
    """Returns a match with its gateways in full."""
    gateways = [names.gateway(name, namespace) for name in match.gateways]
    return match.model_copy(update={"gateways": gateways})


_STRINGS = ("uri", "scheme", "method", "authority")
_MAPS = ("headers", "without_headers", "query_params")


def _both(root: HTTPMatchRequest, own: HTTPMatchRequest) -> HTTPMatchRequest:
    """Returns a delegate's match with what the root's asks besides."""
    update: dict[str, Any] = {
        field: getattr(own, field) or getattr(root, field)
        for field in (*_STRINGS, "port", "source_namespace", "gateways", "stat_prefix")
    }
    for field in (*_MAPS, "source_labels"):
        update[field] = getattr(root, field) | getattr(own, field)
    update["name"] = "-".join(filter(None, (root.name, own.name))) or None
    return own.model_copy(update=update)


def _conflict(root: HTTPMatchRequest, own: HTTPMatchRequest) -> str | None:
    """Returns why a delegate's match is not within a root's, as istiod compares them, or None."""
    pairs = [(field, getattr(root, field), getattr(own, field)) for field in _STRINGS]
    for field in _MAPS:
        known = getattr(root, field)
        pairs += [(key, known.get(key), value) for key, value in getattr(own, field).items()]
    labels = ((root.source_labels.get(key), value) for key, value in own.source_labels.items())
    gateways = (set(root.gateways), set(own.gateways))
    strings = ((name, reason) for name, *two in pairs if (reason := _strings_conflict(*two)))
    others = (
        (root.ignore_uri_case != own.ignore_uri_case, "ignoreUriCase"),
        (root.port and own.port and root.port != own.port, "port"),
        (
            root.source_namespace and root.source_namespace != own.source_namespace,
            "sourceNamespace",
        ),
        (any(known not in (None, value) for known, value in labels), "sourceLabels"),
        (all(gateways) and not gateways[1] <= gateways[0], "gateways"),
    )
    differ = ((name, "differs") for conflicts, name in others if conflicts)
    return next((f"{name} {reason}" for name, reason in chain(strings, differ)), None)


def _strings_conflict(root: StringMatch | None, own: StringMatch | None) -> str | None:
    if root is None or own is None:
        return None
    if root.regex or own.regex:
        return "has a regex, which istiod compares with nothing"
    narrower = own.exact if root.exact else own.prefix or own.exact
    if root.exact:
        return None if narrower == root.exact else f"is not the exact {root.exact}"
    if root.prefix and narrower and narrower.startswith(root.prefix):
        return None
    return f"does not begin with {root.prefix}" if root.prefix else "has any value there"
