"""AuthorizationPolicy: the typed body and what istiod's validation says about it."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator
from typing import Literal

from pydantic import Field

from lab.kinds.selection import SECURITY_VERSIONS, Selecting, selector_problems
from lab.resources.istio import IstioModel, Text, field_problems, refused
from lab.resources.resource import Kind, Path, Problem, Resource

DRY_RUN = "istio.io/dry-run"
"""The annotation that has a policy judge without effect."""

MATCH_ONE, MATCH_ANY = "{*}", "{**}"
"""The templates of `paths`: one segment of a path, and any number of them."""


class Source(IstioModel):
    principals: list[Text] | None = None
    not_principals: list[Text] | None = None
    request_principals: list[Text] | None = None
    not_request_principals: list[Text] | None = None
    namespaces: list[Text] | None = None
    not_namespaces: list[Text] | None = None
    service_accounts: list[Text] | None = None
    not_service_accounts: list[Text] | None = None
    trust_domains: list[Text] | None = None
    not_trust_domains: list[Text] | None = None
    ip_blocks: list[Text] | None = None
    not_ip_blocks: list[Text] | None = None
    remote_ip_blocks: list[Text] | None = None
    not_remote_ip_blocks: list[Text] | None = None


class Operation(IstioModel):
    hosts: list[Text] | None = None
    not_hosts: list[Text] | None = None
    ports: list[Text] | None = None
    not_ports: list[Text] | None = None
    methods: list[Text] | None = None
    not_methods: list[Text] | None = None
    paths: list[Text] | None = None
    not_paths: list[Text] | None = None


class From(IstioModel):
    source: Source | None = None


class To(IstioModel):
    operation: Operation | None = None


class Condition(IstioModel):
    key: Text
    values: list[Text] | None = None
    not_values: list[Text] | None = None


class Rule(IstioModel):
    from_: list[From] | None = Field(default=None, alias="from")
    to: list[To] | None = None
    when: list[Condition] | None = None


class AuthorizationPolicySpec(Selecting):
    action: Literal["ALLOW", "DENY", "AUDIT", "CUSTOM"] = "ALLOW"
    provider: dict[str, object] | None = refused(
        "external authorizers (action CUSTOM); ALLOW, DENY and AUDIT are"
    )
    rules: list[Rule] | None = None


class AuthorizationPolicy(IstioModel):
    spec: AuthorizationPolicySpec = AuthorizationPolicySpec()


def validate(resource: Resource) -> Iterator[Problem]:
    """What istiod's webhook says of an AuthorizationPolicy, and what the lab does not translate."""
    spec: AuthorizationPolicySpec = resource.spec
    path: Path = ("spec",)
    yield from field_problems(spec, path)
    yield from selector_problems(spec, path)
    dry_run = resource.annotations.get(DRY_RUN)
    if dry_run is not None and dry_run not in ("true", "false"):
        yield Problem(("metadata", "annotations", DRY_RUN), 'must be "true" or "false"')
    if spec.action == "CUSTOM":
        yield Problem(
            (*path, "action"),
            "not supported by the lab: external authorizers (action CUSTOM); ALLOW, DENY and AUDIT "
            "are",
        )
    if spec.provider is not None and spec.action != "CUSTOM":
        yield Problem(
            (*path, "provider"), f"provider must not be with non CUSTOM action, found {spec.action}"
        )
    if spec.action == "DENY" and not spec.rules:
        yield Problem(
            path,
            "DENY action without rules is meaningless as it will never be triggered, add an empty "
            "rule {} if you want it to be triggered for every request",
        )
    for index, rule in enumerate(spec.rules or ()):
        yield from _rule(rule, index, (*path, "rules", index))
        if spec.action == "DENY" and _http_only(rule):
            yield Problem(
                (*path, "rules", index),
                "configured AuthorizationPolicy will deny all traffic to TCP ports under its scope "
                "due to the use of only HTTP attributes in a DENY rule; it is recommended to "
                "explicitly specify the port",
                "warning",
            )


def _rule(rule: Rule, index: int, path: Path) -> Iterator[Problem]:
    if rule.from_ is not None and not rule.from_:
        yield Problem((*path, "from"), f"from must not be empty, found at rule {index}")
    if rule.to is not None and not rule.to:
        yield Problem((*path, "to"), f"to must not be empty, found at rule {index}")
    for position, item in enumerate(rule.from_ or ()):
        yield from _source(item.source, index, (*path, "from", position, "source"))
    for position, target in enumerate(rule.to or ()):
        yield from _operation(target.operation, index, (*path, "to", position, "operation"))
    for position, condition in enumerate(rule.when or ()):
        yield from _condition(condition, (*path, "when", position))


def _source(source: Source | None, index: int, path: Path) -> Iterator[Problem]:
    if source is None:
        yield Problem(path, f"from.source must not be nil, found at rule {index}")
        return
    if not any(value for _, value in _lists(source)):
        yield Problem(path, f"from.source must not be empty, found at rule {index}")
    if (source.service_accounts or source.not_service_accounts) and (
        source.principals or source.not_principals or source.namespaces or source.not_namespaces
    ):
        yield Problem(
            path,
            f"cannot set serviceAccounts with namespaces or principals, found at rule {index}",
        )
    yield from _empty_values(source, path)
    for field, values in _lists(source):
        where: Path = (*path, field)
        if field.lower().endswith("ipblocks"):
            yield from _ips(values, where)
        elif field.lower().endswith("serviceaccounts"):
            yield from _service_accounts(values, where)
        elif field.lower().endswith("trustdomains"):
            yield from _trust_domains(values, where)


def _operation(operation: Operation | None, index: int, path: Path) -> Iterator[Problem]:
    if operation is None:
        yield Problem(path, f"to.operation must not be nil, found at rule {index}")
        return
    if not any(value for _, value in _lists(operation)):
        yield Problem(path, f"to.operation must not be empty, found at rule {index}")
    yield from _empty_values(operation, path)
    for field, values in _lists(operation):
        if field.lower().endswith("ports"):
            yield from _ports(values, (*path, field))
        elif field.lower().endswith("paths"):
            yield from _templates(values, (*path, field))


def _lists(model: IstioModel) -> Iterator[tuple[str, list[str]]]:
    """Every list field that is set, by the name it has in YAML."""
    for name, info in type(model).model_fields.items():
        if (values := getattr(model, name)) is not None:
            yield info.alias or name, values


def _empty_values(model: IstioModel, path: Path) -> Iterator[Problem]:
    for field, values in _lists(model):
        if "" in values:
            yield Problem((*path, field), f"empty value not allowed, found in {field}")


def _ips(values: list[str], path: Path) -> Iterator[Problem]:
    for index, value in enumerate(values):
        try:
            ipaddress.ip_network(value, strict=False) if "/" in value else ipaddress.ip_address(
                value
            )
        except ValueError:
            what = "CIDR range" if "/" in value else "IP address"
            yield Problem((*path, index), f"bad {what} ({value})")


def _ports(values: list[str], path: Path) -> Iterator[Problem]:
    for index, value in enumerate(values):
        if not value.isdecimal() or int(value) > 65535:
            yield Problem((*path, index), f"bad port ({value})")


def _service_accounts(values: list[str], path: Path) -> Iterator[Problem]:
    if len(values) > 16:
        yield Problem(path, "may not have more than 16 values")
    for index, value in enumerate(values):
        if "*" in value:
            yield Problem((*path, index), f"wildcard not allowed: {value}")
        elif value.count("/") > 1 or not all(value.split("/")):
            yield Problem(
                (*path, index),
                f'expected format "serviceAccount" or "namespace/serviceAccount", found "{value}"',
            )


def _wildcards(values: list[str], path: Path) -> Iterator[Problem]:
    for index, value in enumerate(values):
        if value.count("*") > 1:
            yield Problem((*path, index), f'at most one wildcard is allowed: "{value}"')
        elif "*" in value[1:-1]:
            yield Problem(
                (*path, index), f'wildcard is only allowed at the start or end: "{value}"'
            )


def _trust_domains(values: list[str], path: Path) -> Iterator[Problem]:
    yield from _wildcards(values, path)
    for index, value in enumerate(values):
        if "/" in value:
            yield Problem((*path, index), f'trust domain must not contain "/": "{value}"')


_SEGMENT = re.compile(r"[a-zA-Z0-9\-._~%!$&'()+,;:@=]+")


def _templates(values: list[str], path: Path) -> Iterator[Problem]:
    for index, value in enumerate(values):
        where: Path = (*path, index)
        template = MATCH_ONE in value or MATCH_ANY in value
        segments = value.strip("/").split("/")
        for position, segment in enumerate(segments):
            if segment in (MATCH_ONE, MATCH_ANY):
                if MATCH_ANY in segments[:position]:
                    yield Problem(
                        where,
                        f"invalid or unsupported path {value}: {{**}} is not the last operator",
                    )
            elif "{" in segment or "}" in segment:
                yield Problem(
                    where,
                    f'invalid or unsupported path {value}: contains "{{" or "}}" beyond a '
                    "supported path template",
                )
            elif template and not _SEGMENT.fullmatch(segment):
                yield Problem(
                    where,
                    f'invalid or unsupported path {value}: segment "{segment}" is not a valid '
                    "literal",
                )


_PLAIN_KEYS = (
    "source.namespace",
    "source.principal",
    "request.auth.principal",
    "request.auth.audiences",
    "request.auth.presenter",
    "connection.sni",
)
_IP_KEYS = ("source.ip", "remote.ip", "destination.ip")
_MAP_KEYS = ("request.headers", "request.auth.claims", "experimental.envoy.filters.")


def _condition(condition: Condition, path: Path) -> Iterator[Problem]:
    key = condition.key
    if not key:
        yield Problem((*path, "key"), "key must not be empty")
        return
    if not condition.values and not condition.not_values:
        yield Problem(path, f"at least one of values or notValues must be set for key {key}")
        return
    if problem := _key_problem(key):
        yield Problem((*path, "key"), problem)
        return
    for field, values in (("values", condition.values), ("notValues", condition.not_values)):
        where: Path = (*path, field)
        if "" in (values or ()):
            yield Problem(where, f"empty value not allowed, found in {key}")
        elif key in _IP_KEYS:
            yield from _ips(values or [], where)
        elif key == "destination.port":
            yield from _ports(values or [], where)
        elif key == "source.serviceAccount":
            yield from _service_accounts(values or [], where)
        elif key == "source.trustDomain":
            yield from _wildcards(values or [], where)


def _key_problem(key: str) -> str | None:
    known = (*_PLAIN_KEYS, *_IP_KEYS, "destination.port", "source.serviceAccount")
    if key in (*known, "source.trustDomain"):
        return None
    if key.startswith(_MAP_KEYS):
        opening = key.find("[")
        if not (key.endswith("]") and 0 < opening < len(key) - 2):
            return f"bad key ({key}): should have format a[b]"
        return None
    return f"unknown attribute: {key}"


_TCP_SOURCE = (
    "principals",
    "not_principals",
    "ip_blocks",
    "not_ip_blocks",
    "namespaces",
    "not_namespaces",
    "remote_ip_blocks",
    "not_remote_ip_blocks",
    "service_accounts",
    "not_service_accounts",
)


def _http_only(rule: Rule) -> bool:
    """Whether a rule names nothing a TCP connection has, so that on TCP nothing is left of it."""
    sources = [item.source for item in rule.from_ or () if item.source is not None]
    operations = [item.operation for item in rule.to or () if item.operation is not None]
    tcp_from = any(getattr(source, name) is not None for source in sources for name in _TCP_SOURCE)
    tcp_to = any(item.ports is not None or item.not_ports is not None for item in operations)
    if operations:
        return not tcp_to
    return bool(sources) and not tcp_from


KINDS: tuple[Kind, ...] = (
    Kind(
        group="security.istio.io",
        kind="AuthorizationPolicy",
        plural="authorizationpolicies",
        versions=SECURITY_VERSIONS,
        body=AuthorizationPolicy,
        short_names=("ap",),
        validate=validate,
    ),
)
