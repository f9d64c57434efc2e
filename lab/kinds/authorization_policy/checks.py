"""Checks of an AuthorizationPolicy: istiod's validation beyond the schema, and the lab's limits."""

from __future__ import annotations

import re
from collections.abc import Iterator

from lab.kinds.authorization_policy.types import (
    AuthorizationPolicy,
    AuthorizationPolicySpec,
    Condition,
    Operation,
    Rule,
    Source,
)
from lab.kinds.selection import SELECTION
from lab.resources.checks import fields
from lab.resources.istio import kind
from lab.resources.metadata import DRY_RUN
from lab.resources.resource import Check, Problem, Resource
from lab.resources.values import is_cidr, is_ip

MATCH_ONE, MATCH_ANY = "{*}", "{**}"
"""The templates of `paths`: one segment of a path, and any number of them."""


TRUE = ("1", "t", "T", "TRUE", "true", "True")
FALSE = ("0", "f", "F", "FALSE", "false", "False")
"""Booleans as Go reads them."""


def _dry_run(resource: Resource) -> Iterator[Problem]:
    value, action = resource.annotations.get(DRY_RUN), resource.spec.action
    where = ("metadata", "annotations", DRY_RUN)
    if value is not None and action not in ("ALLOW", "DENY"):
        reason = (
            f"the annotation {DRY_RUN} currently only supports action ALLOW/DENY, found action "
            f"{action} in {resource.namespace}/{resource.name}"
        )
        yield Problem(where, reason)
    elif value is not None and value not in (*TRUE, *FALSE):
        name = f"{resource.namespace}/{resource.name}"
        yield Problem(where, f"{name} has annotation {DRY_RUN} with invalid value ({value})")


def _provider(spec: AuthorizationPolicySpec) -> Iterator[Problem]:
    if spec.provider is not None and spec.action != "CUSTOM":
        reason = f"provider must not be with non CUSTOM action, found {spec.action}"
        yield Problem(("provider",), reason)


_NOT_ASKED_WHEN = ("source.namespace", "source.serviceAccount", "source.trustDomain")


def _custom(spec: AuthorizationPolicySpec) -> Iterator[Problem]:
    if spec.action != "CUSTOM":
        return
    if not spec.rules:
        reason = (
            "CUSTOM action without `rules` is meaningless as it will never be triggered, add an "
            "empty rule `{}` if you want it be triggered for every request"
        )
        yield Problem((), reason)
    elif spec.provider is None or not spec.provider.name:
        yield Problem(("provider",), "`provider.name` must not be empty")
    for index, rule in enumerate(spec.rules or ()):
        for position, item in enumerate(rule.from_ or ()):
            for name, _ in fields(Source) if item.source is not None else ():
                if getattr(item.source, name) and not name.endswith("ip_blocks"):
                    field = name.title().replace("_", "")
                    reason = f"From.{field} is currently not supported with CUSTOM action"
                    yield Problem(("rules", index, "from", position), reason)
        for position, condition in enumerate(rule.when or ()):
            key = condition.key
            if key in (*_NOT_ASKED_WHEN, "source.principal") or key.startswith("request.auth."):
                reason = f"{key} is currently not supported with CUSTOM action"
                yield Problem(("rules", index, "when", position, "key"), reason)


def _rules(rules: list[Rule]) -> Iterator[Problem]:
    for index, rule in enumerate(rules):
        found = f"found at rule {index}"
        for position, item in enumerate(rule.from_ or ()):
            if reason := _empty("from.source", item.source) or _accounts(item.source):
                yield Problem((index, "from", position, "source"), f"{reason}, {found}")
        for position, target in enumerate(rule.to or ()):
            if reason := _empty("to.operation", target.operation):
                yield Problem((index, "to", position, "operation"), f"{reason}, {found}")


def _empty(name: str, model: Source | Operation | None) -> str:
    if model is None:
        return f"{name} must not be nil"
    lists = [getattr(model, attribute) for attribute, _ in fields(type(model))]
    return "" if any(lists) else f"{name} must not be empty"


def _accounts(source: Source | None) -> str:
    if source is not None and (source.service_accounts or source.not_service_accounts):
        others = (source.principals, source.not_principals)
        if any((*others, source.namespaces, source.not_namespaces)):
            return "cannot set serviceAccounts with namespaces or principals"
    return ""


def _address(value: str) -> str | None:
    if "/" in value:
        return None if is_cidr(value) else f"bad CIDR range ({value})"
    return None if is_ip(value) else f"bad IP address ({value})"


def _port(value: str) -> str | None:
    good = re.fullmatch("[0-9]+", value) and int(value) <= 65535
    return None if good else f"bad port ({value})"


def _service_account(value: str) -> str | None:
    if "*" in value:
        return f'wildcard not allowed, found "{value}"'
    if len(value) > 320:
        return f"value cannot exceed 320 characters: {value}"
    if value.count("/") > 1 or not all(value.split("/")):
        return f"expected format 'serviceAccount' or 'namespace/serviceAccount', found \"{value}\""
    return None


def _wildcard(value: str) -> str | None:
    if value.count("*") > 1:
        return f'at most one wildcard is allowed, found "{value}"'
    if "*" in value[1:-1]:
        return f'wildcard is only allowed at the start or end, found "{value}"'
    return None


def _trust_domain(value: str) -> str | None:
    if "/" in value:
        return f"trust domain must not contain '/', found \"{value}\""
    return _wildcard(value)


_SEGMENT = re.compile(r"[a-zA-Z0-9\-._~%!$&'()+,;:@=]+")


def _template(value: str) -> Iterator[Problem]:
    template = MATCH_ONE in value or MATCH_ANY in value
    segments = value.strip("/").split("/")
    for position, segment in enumerate(segments):
        reason = ""
        if segment in (MATCH_ONE, MATCH_ANY):
            if MATCH_ANY in segments[:position]:
                reason = "{**} is not the last operator"
        elif "{" in segment or "}" in segment:
            reason = 'contains "{" or "}" beyond a supported path template'
        elif template and not _SEGMENT.fullmatch(segment):
            reason = f'segment "{segment}" is not a valid literal'
        if reason:
            yield Problem((), f"invalid or unsupported path {value}: {reason}")


_VALUES = {
    "source.ip": _address,
    "remote.ip": _address,
    "destination.ip": _address,
    "destination.port": _port,
    "source.serviceAccount": _service_account,
    "source.trustDomain": _wildcard,
}
"""The keys of conditions whose values have a form."""
_PLAIN_KEYS = (
    "source.namespace",
    "source.principal",
    "request.auth.principal",
    "request.auth.audiences",
    "request.auth.presenter",
    "connection.sni",
)
_MAP_KEYS = ("request.headers", "request.auth.claims", "experimental.envoy.filters.")


def _condition(condition: Condition) -> Iterator[Problem]:
    key = condition.key
    if not key:
        yield Problem(("key",), "key must not be empty")
    elif not condition.values and not condition.not_values:
        yield Problem((), f"at least one of values or notValues must be set for key {key}")
    elif reason := _key_problem(key):
        yield Problem(("key",), f"invalid value for key {key}: {reason}")
    else:
        yield from _values(key, "values", condition.values or [])
        yield from _values(key, "notValues", condition.not_values or [])


def _values(key: str, field: str, values: list[str]) -> Iterator[Problem]:
    if "" in values:
        yield Problem((field,), f"empty value not allowed, found in {key}")
        return
    if key == "source.serviceAccount" and len(values) > 16:
        yield Problem((field,), "may not have more than 16 values")
    for index, value in enumerate(values):
        if key in _VALUES and (reason := _VALUES[key](value)):
            yield Problem((field, index), f"invalid {field[:-1]} for key {key}: {reason}")


def _key_problem(key: str) -> str | None:
    if key in _VALUES or key in _PLAIN_KEYS:
        return None
    if key.startswith(_MAP_KEYS):
        opening = key.find("[")
        if not (key.endswith("]") and 0 < opening < len(key) - 2):
            return f"bad key ({key}): should have format a[b]"
        return None
    return f"unknown attribute: {key}"


_TCP_SOURCE = (
    "principals",
    "ip_blocks",
    "namespaces",
    "remote_ip_blocks",
    "service_accounts",
)


def _http_only(spec: AuthorizationPolicySpec) -> Iterator[Problem]:
    """Warns about rules that name nothing a TCP connection has: on TCP nothing is left of them."""
    for index, rule in enumerate(spec.rules or () if spec.action == "DENY" else ()):
        sources = [item.source for item in rule.from_ or () if item.source is not None]
        operations = [item.operation for item in rule.to or () if item.operation is not None]
        tcp_from = any(
            getattr(source, f"{negation}{name}")
            for source in sources
            for name in _TCP_SOURCE
            for negation in ("", "not_")
        )
        tcp_to = any(item.ports or item.not_ports for item in operations)
        if not tcp_to if operations else bool(sources) and not tcp_from:
            yield Problem(
                ("rules", index),
                "configured AuthorizationPolicy will deny all traffic to TCP ports under its scope "
                "due to the use of only HTTP attributes in a DENY rule; it is recommended to "
                "explicitly specify the port",
                "warning",
            )


CHECKS = (
    *SELECTION,
    Check("", _dry_run),
    Check("spec", _custom),
    Check("spec", _provider),
    Check(
        "spec",
        lambda spec: spec.action != "DENY" or bool(spec.rules),
        "DENY action without rules is meaningless as it will never be triggered, add an empty rule "
        "{{}} if you want it be triggered for every request",
    ),
    Check("spec.rules", _rules),
    Check(
        "**.source|operation.*",
        lambda values: not isinstance(values, list) or "" not in values,
        "empty value not allowed, found in {field}",
    ),
    Check("**.source.ipBlocks[]|notIpBlocks[]|remoteIpBlocks[]|notRemoteIpBlocks[]", _address),
    Check("**.source.serviceAccounts[]|notServiceAccounts[]", _service_account),
    Check("**.source.trustDomains[]|notTrustDomains[]", _trust_domain),
    Check("**.operation.ports[]|notPorts[]", _port),
    Check("**.operation.paths[]|notPaths[]", _template),
    Check("spec.rules[].when[]", _condition),
    Check("spec", _http_only),
)

KINDS = (kind("AuthorizationPolicy", AuthorizationPolicy, CHECKS),)
