"""Envoy's RBAC filters: the decision about a request."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from lab.explain.interpret import matchers
from lab.explain.interpret.matchers import NoAnswerError, Request
from lab.model import Json

_SEGMENT = r"[a-zA-Z0-9\-._~%!$&'()+,;:@=]+"
_SEGMENTS = r"[a-zA-Z0-9\-._~%!$&'()+,;:@=/]*"


@dataclass(frozen=True, slots=True)
class Decision:
    """Whether a request passes the filters, and why."""

    allowed: bool
    policy: str = ""
    """The name of the policy that matches; empty when none does."""
    rules: Json | None = None
    """The rules of the filter that decides; None without one."""


def decide(filters: Iterable[Json], request: Request) -> Decision:
    """Returns the decision of RBAC filters, given by their typed configurations, in order."""
    decision = Decision(True)
    for config in filters:
        if "matcher" in config:
            raise NoAnswerError("route does not read the `matcher` of an RBAC filter")
        rules = config.get("rules")
        if rules is None or action(rules) == "LOG":
            continue
        policy = next(iter(matching(rules, request)), "")
        allowed = bool(policy) == (action(rules) == "ALLOW")
        if policy or not allowed:
            decision = Decision(allowed, policy, rules)
        if not allowed:
            break
    return decision


def action(rules: Json) -> str:
    """ALLOW (also when it is not given), DENY or LOG."""
    return str(rules.get("action", "ALLOW"))


def matching(rules: Json, request: Request) -> list[str]:
    """Returns the names of the policies that match a request."""
    return [
        name
        for name, policy in rules.get("policies", {}).items()
        if any(_holds(one, request) for one in policy["permissions"])
        and any(_holds(one, request) for one in policy["principals"])
    ]


def _holds(matcher: Json, request: Request) -> bool:
    """Whether a request passes a Permission or a Principal; the two share their form."""
    ((kind, value),) = matcher.items()
    match kind:
        case "any":
            return True
        case "and_rules" | "and_ids":
            return all(_holds(one, request) for one in next(iter(value.values())))
        case "or_rules" | "or_ids":
            return any(_holds(one, request) for one in next(iter(value.values())))
        case "not_rule" | "not_id":
            return not _holds(value, request)
        case "header":
            return matchers.header(value, request)
        case "url_path":
            return matchers.string(value["path"], request.bare_path)
        case "uri_template":
            return _template(value["typed_config"]["path_template"], request.bare_path)
        case "destination_port":
            return bool(value == request.port)
        case "destination_ip":
            return matchers.within(value, request.destination_ip)
        case "direct_remote_ip":
            return matchers.within(value, request.source_ip)
        case "remote_ip":
            return matchers.within(value, request.remote_ip or request.source_ip)
        case "requested_server_name":
            return matchers.string(value, request.server_name)
        case "authenticated":
            name = value.get("principal_name")
            return request.peer is not None and (
                name is None or matchers.string(name, request.peer)
            )
        case "metadata":
            return matchers.metadata(value, request)
    raise NoAnswerError(f"route does not read the RBAC matcher {kind}")


def _template(template: str, path: str) -> bool:
    kinds = {"*": _SEGMENT, "**": _SEGMENTS}
    pieces = re.split(r"(\*\*|\*)", template)
    pattern = "".join(kinds.get(piece, re.escape(piece)) for piece in pieces)
    return re.fullmatch(pattern, path) is not None
