"""AuthorizationPolicy: the RBAC filters of a pod.

There is one filter for each action, in Istio's order: AUDIT, DENY, ALLOW. A rule becomes one RBAC
policy: its `to` are permissions, its `from` are principals, and each `when` is one of the two.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from lab.kinds import selection
from lab.kinds.authorization_policy.checks import MATCH_ANY, MATCH_ONE, TRUE
from lab.kinds.authorization_policy.types import Operation, Rule, Source
from lab.model import Json, Pod, Snapshot
from lab.resources.metadata import DRY_RUN
from lab.resources.resource import Resource
from lab.xds import extension

Action = Literal["AUDIT", "DENY", "ALLOW", "CUSTOM"]
ACTIONS: tuple[Action, ...] = ("AUDIT", "DENY", "ALLOW")

_NEVER: Json = {
    "permissions": [{"not_rule": {"any": True}}],
    "principals": [{"not_id": {"any": True}}],
}
"""The RBAC policy of a policy without rules; with ALLOW, the default, it denies everything."""


@dataclass(frozen=True, slots=True)
class Attribute:
    """One field of a rule: an attribute of the request, its allowed and its forbidden values."""

    key: str
    values: tuple[str, ...]
    not_values: tuple[str, ...]


def applicable(snapshot: Snapshot, pod: Pod, action: Action) -> list[Resource]:
    """Returns the policies of one action for a pod, oldest first."""
    found = selection.for_pod(snapshot, "AuthorizationPolicy", pod)
    return [policy for policy in found if policy.spec.action == action]


def dry_run(policy: Resource) -> bool:
    """Returns whether a policy is only reported, not enforced."""
    return policy.annotations.get(DRY_RUN) in TRUE


def rule_name(policy: Resource, index: int) -> str:
    """Returns the name of a rule in the access log: `ns[default]-policy[ui-viewer]-rule[0]`."""
    return f"ns[{policy.namespace}]-policy[{policy.name}]-rule[{index}]"


def http_filters(snapshot: Snapshot, pod: Pod) -> list[Json]:
    """Returns the HTTP filters `envoy.filters.http.rbac` of inbound traffic, or of a gateway."""
    return [http_filter(found) for found in _rules(snapshot, pod, tcp=False)]


def http_filter(fields: Json) -> Json:
    """Returns one HTTP filter with the rules in its fields."""
    return extension("envoy.filters.http.rbac", "extensions.filters.http.rbac.v3.RBAC", **fields)


def network_filters(snapshot: Snapshot, pod: Pod) -> list[Json]:
    """Returns the network filters `envoy.filters.network.rbac` of a TCP port."""
    return [network_filter(found) for found in _rules(snapshot, pod, tcp=True)]


def network_filter(fields: Json) -> Json:
    """Returns one network filter with the rules in its fields."""
    kind = "extensions.filters.network.rbac.v3.RBAC"
    return extension("envoy.filters.network.rbac", kind, stat_prefix="tcp.", **fields)


def _rules(snapshot: Snapshot, pod: Pod, *, tcp: bool) -> Iterator[Json]:
    for action in ACTIONS:
        policies = applicable(snapshot, pod, action)
        fields: Json = {}
        if enforced := [policy for policy in policies if not dry_run(policy)]:
            fields["rules"] = rules(enforced, action, snapshot.trust_domains, tcp=tcp)
        if shadowed := [policy for policy in policies if dry_run(policy)]:
            fields["shadow_rules"] = rules(shadowed, action, snapshot.trust_domains, tcp=tcp)
        if fields:
            kind = "deny" if action == "DENY" and shadowed else "allow"
            fields["shadow_rules_stat_prefix"] = f"istio_dry_run_{kind}_"
            yield fields


def rules(
    policies: list[Resource],
    action: Action,
    domains: Sequence[str],
    *,
    tcp: bool,
    name: str = "{}",
) -> Json:
    """Returns the rules of policies as those of a filter; `name` is for their names in it."""
    generated: Json = {}
    for policy in policies:
        if not policy.spec.rules:
            generated[name.format(rule_name(policy, 0))] = _NEVER
        for index, rule in enumerate(policy.spec.rules or ()):
            if (body := _policy(policy, rule, action, domains, tcp=tcp)) is not None:
                generated[name.format(rule_name(policy, index))] = body
    return {"action": "LOG" if action == "AUDIT" else action, "policies": generated}


def _policy(
    policy: Resource, rule: Rule, action: Action, domains: Sequence[str], *, tcp: bool
) -> Json | None:
    """Returns a rule as an RBAC policy; None when ALLOW can't ask it of a TCP connection."""
    targets = permissions(rule)
    sources = [[_with_aliases(one, domains) for one in each] for each in principals(rule)]
    if tcp:
        served = _without_http(targets), _without_http(sources)
        # ALLOW loses the rule and lets in less; DENY loses the field and keeps out more.
        if action == "ALLOW" and served != (targets, sources):
            return None
        targets, sources = served
    return {
        "permissions": [_all_of(found, "rule", policy.namespace) for found in targets],
        "principals": [_all_of(found, "id", policy.namespace) for found in sources],
    }


def _with_aliases(attribute: Attribute, domains: Sequence[str]) -> Attribute:
    """Returns an attribute in which a trust domain of the mesh stands for all of them."""
    expand = {"source.principal": _principals, "source.trustDomain": _trust_domains}.get(
        attribute.key
    )
    if expand is None:
        return attribute
    values, others = (
        tuple(one for value in found for one in expand(value, domains))
        for found in (attribute.values, attribute.not_values)
    )
    return Attribute(attribute.key, values, others)


def _trust_domains(value: str, domains: Sequence[str]) -> Sequence[str]:
    return domains if value in domains else (value,)


def _principals(value: str, domains: Sequence[str]) -> Sequence[str]:
    """Returns a principal with each trust domain, if its own is one; `cluster.local` always is."""
    own, *rest = value.split("/")
    if len(rest) != 4 or own == "*" or not (own == "cluster.local" or _any_fits(own, domains)):
        return (value,)
    fits = (own.startswith("*") and domain.endswith(own[1:]) for domain in domains)
    found = (
        value if kept else "/".join((domain, *rest))
        for domain, kept in zip(domains, fits, strict=True)
    )
    return list(dict.fromkeys(found))


def _any_fits(own: str, domains: Sequence[str]) -> bool:
    """Returns whether a trust domain, perhaps with a wildcard at an end, is one of the mesh's."""
    pattern = re.compile(re.escape(own).replace(r"\*", ".*"))
    return any(pattern.fullmatch(domain) for domain in domains)


def _without_http(found: list[list[Attribute]]) -> list[list[Attribute]]:
    """Returns the conditions that a TCP connection can be asked for."""
    return [[one for one in each if not one.key.startswith(HTTP_ONLY)] for each in found]


def _all_of(attributes: list[Attribute], kind: Literal["rule", "id"], namespace: str) -> Json:
    """Returns the permission ("rule") or principal ("id") with all of these attributes."""

    def any_of(key: str, values: tuple[str, ...]) -> Json:
        if claim := _list_claim(key):
            return _claim_value(claim, _any_in_list(values))
        if key.startswith(_EXPERIMENTAL):
            return _metadata(key, values)
        matchers = [_matcher(key, value, namespace) for value in values]
        if len(values) == 1 and key == _REQUEST_PRINCIPAL:
            return matchers[0]
        return {f"or_{kind}s": {f"{kind}s": matchers}}

    found: list[Json] = []
    for attribute in attributes:
        if attribute.values:
            found.append(any_of(attribute.key, attribute.values))
        if attribute.not_values:
            found.append({f"not_{kind}": any_of(attribute.key, attribute.not_values)})
    return {f"and_{kind}s": {f"{kind}s": found or [{"any": True}]}}


_DESTINATION_KEYS = ("destination.ip", "destination.port", "connection.sni")
_EXPERIMENTAL = "experimental.envoy.filters."
_REQUEST_PRINCIPAL = "request.auth.principal"
_OPERATION_KEYS = {
    "hosts": ":authority",
    "methods": ":method",
    "paths": "path",
    "ports": "destination.port",
}
_SOURCE_KEYS = {
    "principals": "source.principal",
    "request_principals": "request.auth.principal",
    "service_accounts": "source.serviceAccount",
    "trust_domains": "source.trustDomain",
    "namespaces": "source.namespace",
    "remote_ip_blocks": "remote.ip",
    "ip_blocks": "source.ip",
}


def permissions(rule: Rule) -> list[list[Attribute]]:
    """Returns a rule's conditions of the target: a list for each `to`, of which one must hold."""
    conditions = [found for found in _conditions(rule) if _is_destination(found.key)]
    operations = [item.operation for item in rule.to or () if item.operation is not None]
    return [_fields(one, _OPERATION_KEYS) + conditions for one in operations] or [conditions]


def principals(rule: Rule) -> list[list[Attribute]]:
    """Returns a rule's conditions of the source: a list for each `from`, of which one must hold."""
    conditions = [found for found in _conditions(rule) if not _is_destination(found.key)]
    sources = [item.source for item in rule.from_ or () if item.source is not None]
    return [_fields(one, _SOURCE_KEYS) + conditions for one in sources] or [conditions]


def _is_destination(key: str) -> bool:
    return key in _DESTINATION_KEYS or key.startswith(_EXPERIMENTAL)


def _conditions(rule: Rule) -> list[Attribute]:
    return [
        Attribute(found.key, tuple(found.values or ()), tuple(found.not_values or ()))
        for found in rule.when or ()
    ]


def _fields(model: Source | Operation, keys: dict[str, str]) -> list[Attribute]:
    found = [
        Attribute(
            key, tuple(getattr(model, name) or ()), tuple(getattr(model, f"not_{name}") or ())
        )
        for name, key in keys.items()
    ]
    return [attribute for attribute in found if attribute.values or attribute.not_values]


HTTP_ONLY = (":authority", ":method", "path", "request.")


def _matcher(key: str, value: str, namespace: str) -> Json:
    """Returns one value of one attribute as an RBAC permission or principal."""
    match key:
        case ":authority":
            return {"header": {"name": key, **_header(value, ignore_case=True)}}
        case ":method":
            return {"header": {"name": key, **_header(value)}}
        case "path":
            return _path(value)
        case "destination.port":
            return {"destination_port": int(value)}
        case "destination.ip":
            return {"destination_ip": _cidr(value)}
        case "connection.sni":
            return {"requested_server_name": _string(value)}
        case "source.ip":
            return {"direct_remote_ip": _cidr(value)}
        case "remote.ip":
            return {"remote_ip": _cidr(value)}
        case "request.auth.principal":
            issuer, subject = request_principal(value)
            return {"and_ids": {"ids": [_claim(["iss"], issuer), _claim(["sub"], subject)]}}
    if key.startswith("request.headers["):
        return {"header": {"name": bracketed(key)[0], **_header(value)}}
    return {"authenticated": {"principal_name": peer_matcher(key, value, namespace)}}


def peer_matcher(key: str, value: str, namespace: str) -> Json:
    """Returns the StringMatcher of the peer's SPIFFE ID for a source attribute."""
    match key:
        case "source.namespace":
            pattern = ".*".join(_quoted(part) for part in value.split("*"))
            return _regex(f".*/ns/{pattern}/.*")
        case "source.serviceAccount":
            where, slash, account = value.rpartition("/")
            where = _quoted(where if slash else namespace)
            return _regex(f"spiffe://.+/ns/{where}/(.+/|)sa/{_quoted(account)}(/.+)?")
        case "source.trustDomain":
            if value == "*":
                return {"prefix": "spiffe://"}
            if "*" not in value:
                return {"prefix": f"spiffe://{value}/"}
            pattern = "[^/]*".join(_quoted(part) for part in value.split("*", 1))
            return _regex(f"spiffe://{pattern}/.*")
        case "source.principal":
            if value != "*" and value.startswith("*"):
                return _regex(f"spiffe://.*{_quoted(value[1:])}")
            return _string(value, "spiffe://")
    raise ValueError(f"unknown attribute {key}")


def bracketed(key: str) -> list[str]:
    """Returns the names in `request.auth.claims[a][b]`."""
    inside = key[key.index("[") + 1 : -1]
    return inside.split("][")


def request_principal(value: str) -> tuple[Json, Json]:
    """Returns the StringMatchers of issuer and subject of `ISSUER/SUBJECT`."""
    anything = _regex(".+")
    issuer, slash, subject = value.rpartition("/")
    if value == "*":
        return anything, anything
    if value.startswith("*"):
        if not slash:
            return anything, {"suffix": value[1:]}
        return (anything if issuer == "*" else {"suffix": issuer[1:]}), {"exact": subject}
    if value.endswith("*"):
        if not slash:
            return {"prefix": value[:-1]}, anything
        return {"exact": issuer}, (anything if subject == "*" else {"prefix": subject[:-1]})
    if not slash:
        return {"exact": value}, {"exact": ""}
    return {"exact": issuer}, {"exact": subject}


def _quoted(text: str) -> str:
    """Returns a text as a regular expression, as Go quotes it."""
    return re.sub(r"([\\.+*?()|\[\]{}^$])", r"\\\1", text)


def _regex(pattern: str) -> Json:
    return {"safe_regex": {"regex": pattern}}


def _string(value: str, prefix: str = "") -> Json:
    """Returns the StringMatcher of a value with Istio's wildcards; `*` is any but an empty one."""
    if value == "*":
        return _regex(".+")
    if value.startswith("*"):
        return {"suffix": value[1:]}
    if value.endswith("*"):
        return {"prefix": prefix + value[:-1]}
    return {"exact": prefix + value}


def _header(value: str, *, ignore_case: bool = False) -> Json:
    if value == "*":
        return {"present_match": True}
    matcher = _string(value)
    return {"string_match": {**matcher, "ignore_case": True} if ignore_case else matcher}


def _path(value: str) -> Json:
    if MATCH_ONE in value or MATCH_ANY in value:
        template = value.replace(MATCH_ONE, "*").replace(MATCH_ANY, "**")
        kind = "extensions.path.match.uri_template.v3.UriTemplateMatchConfig"
        name = "uri-template"
        return {"uri_template": extension(name, kind, path_template=template)}
    return {"url_path": {"path": _string(value)}}


def _cidr(value: str) -> Json:
    address, slash, length = value.partition("/")
    return {
        "address_prefix": address,
        "prefix_len": int(length) if slash else (128 if ":" in address else 32),
    }


JWT_FILTER = "envoy.filters.http.jwt_authn"
PAYLOAD = "payload"
"""The key of a token's claims in the dynamic metadata of jwt_authn."""


def _claim(path: list[str], matcher: Json) -> Json:
    return _claim_value(path, {"string_match": matcher})


def _claim_value(path: list[str], value: Json) -> Json:
    keys = [{"key": key} for key in (PAYLOAD, *path)]
    return {"metadata": {"filter": JWT_FILTER, "path": keys, "value": value}}


def _list_claim(key: str) -> list[str] | None:
    """Returns the path of a claim that may be a list; None for another attribute."""
    if key.startswith("request.auth.claims["):
        return bracketed(key)
    claim = {"request.auth.audiences": "aud", "request.auth.presenter": "azp"}.get(key)
    return [claim] if claim else None


def _any_in_list(values: tuple[str, ...]) -> Json:
    """Returns the ValueMatcher of a claim that is one of the values, or a list with one."""
    texts = [{"string_match": _string(value)} for value in values]
    one = texts[0] if len(texts) == 1 else {"or_match": {"value_matchers": texts}}
    return {"or_match": {"value_matchers": [{"list_match": {"one_of": one}}, one]}}


def _metadata(key: str, values: tuple[str, ...]) -> Json:
    """Returns the matcher of `experimental.envoy.filters.a.b[c]`, dynamic metadata of a filter."""
    filter_name, _, name = key.removeprefix("experimental.").removesuffix("]").partition("[")
    texts: list[Json] = []
    for value in values:
        listed = value.startswith("[") and value.endswith("]")
        text = {"string_match": _string(value.strip("[]") if listed else value)}
        texts.append({"list_match": {"one_of": text}} if listed else text)
    matcher = texts[0] if len(texts) == 1 else {"or_match": {"value_matchers": texts}}
    return {"metadata": {"filter": filter_name, "path": [{"key": name}], "value": matcher}}
