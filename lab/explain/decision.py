"""What AuthorizationPolicies say of one request, in Python: the answer of `guestbook route`.

It reads the policies themselves, not the filters that `authorization` makes of them.
"""

from __future__ import annotations

import ipaddress
import posixpath
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote

import re2

from lab.kinds.authorization_policy.becomes import (
    HTTP_ONLY,
    Action,
    Attribute,
    applicable,
    bracketed,
    dry_run,
    permissions,
    principals,
)
from lab.kinds.authorization_policy.checks import MATCH_ANY, MATCH_ONE
from lab.kinds.authorization_policy.types import Rule
from lab.model import Pod, Snapshot
from lab.resources.resource import Resource


@dataclass(frozen=True, slots=True)
class Request:
    """A request, or a TCP connection, as the proxy of its target sees it."""

    port: int
    """The container port."""
    method: str = "GET"
    path: str = "/"
    """With the query, as sent."""
    authority: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    peer: str | None = None
    """The SPIFFE identity of the caller; None when it came in plain text."""
    source_ip: str = ""
    remote_ip: str = ""
    destination_ip: str = ""
    server_name: str = ""
    claims: Mapping[str, Any] | None = None
    """The claims of a token that RequestAuthentication has accepted; None without one."""


@dataclass(frozen=True, slots=True)
class Decision:
    """Whether a request gets in (else 403, or a closed connection), and which rule says so."""

    allowed: bool
    reason: str
    policy: Resource | None = None
    rule: int | None = None
    remarks: tuple[str, ...] = ()
    """What dry runs and audits say besides."""

    @property
    def place(self) -> str | None:
        """`file:line` of the deciding rule or policy."""
        if self.policy is None:
            return None
        if self.rule is None:
            return self.policy.source.at("spec")
        return self.policy.source.at("spec", "rules", self.rule)


def decide(snapshot: Snapshot, pod: Pod, request: Request, *, tcp: bool = False) -> Decision:
    """DENY before ALLOW; without an ALLOW policy everything gets in, with one only what it names.

    `tcp` is for the ports that Istio treats as TCP, where a policy can see no HTTP.
    """
    remarks = tuple(_remarks(snapshot, pod, request, tcp=tcp))
    denial = _first(_enforced(snapshot, pod, "DENY"), request, "DENY", tcp=tcp)
    if denial is not None:
        policy, index = denial
        return Decision(False, f"denied by {_named(policy)}", policy, index, remarks)
    allowing = _enforced(snapshot, pod, "ALLOW")
    if not allowing:
        return Decision(True, "no ALLOW policy applies", remarks=remarks)
    found = _first(allowing, request, "ALLOW", tcp=tcp)
    if found is not None:
        policy, index = found
        return Decision(True, f"allowed by {_named(policy)}", policy, index, remarks)
    listed = ", ".join(_named(policy) for policy in allowing)
    return Decision(False, f"no rule of {listed} matches", allowing[0], None, remarks)


def _named(policy: Resource) -> str:
    return f"{policy.namespace}/{policy.name}"


def _enforced(snapshot: Snapshot, pod: Pod, action: Action) -> list[Resource]:
    return [policy for policy in applicable(snapshot, pod, action) if not dry_run(policy)]


def _remarks(snapshot: Snapshot, pod: Pod, request: Request, *, tcp: bool) -> list[str]:
    remarks = []
    actions: tuple[Action, ...] = ("DENY", "ALLOW", "AUDIT")
    for action in actions:
        for policy in applicable(snapshot, pod, action):
            if not dry_run(policy) and action != "AUDIT":
                continue
            matched = _first([policy], request, action, tcp=tcp) is not None
            what = "matches" if matched else "does not match"
            dry = "dry run, " if dry_run(policy) else ""
            remarks.append(f"{_named(policy)} ({dry}{action}) {what}")
    return remarks


def _first(
    policies: list[Resource], request: Request, action: Action, *, tcp: bool
) -> tuple[Resource, int] | None:
    for policy in policies:
        for index, rule in enumerate(policy.spec.rules or ()):
            if matches(policy, rule, request, action, tcp=tcp):
                return policy, index
    return None


def matches(
    policy: Resource, rule: Rule, request: Request, action: Action, *, tcp: bool = False
) -> bool:
    """Whether one rule is about a request: any `to`, any `from`, and every `when`."""
    if tcp and action == "ALLOW" and _names_http(rule):
        return False

    def every(attributes: list[Attribute]) -> bool:
        return all(
            _passes(policy, attribute, request)
            for attribute in attributes
            if not (tcp and attribute.key.startswith(HTTP_ONLY))
        )

    return any(every(found) for found in permissions(rule)) and any(
        every(found) for found in principals(rule)
    )


def _names_http(rule: Rule) -> bool:
    return any(
        attribute.key.startswith(HTTP_ONLY)
        for found in (*permissions(rule), *principals(rule))
        for attribute in found
    )


def _passes(policy: Resource, attribute: Attribute, request: Request) -> bool:
    def has(value: str) -> bool:
        return _has(policy, attribute.key, value, request)

    if attribute.values and not any(has(value) for value in attribute.values):
        return False
    return not any(has(value) for value in attribute.not_values)


def _has(policy: Resource, key: str, value: str, request: Request) -> bool:
    match key:
        case ":method":
            return _wildcard(value, request.method)
        case ":authority":
            return _wildcard(value.lower(), request.authority.lower())
        case "path":
            return _path(value, request.path)
        case "destination.port":
            return request.port == int(value)
        case "destination.ip":
            return _within(request.destination_ip, value)
        case "source.ip":
            return _within(request.source_ip, value)
        case "remote.ip":
            return _within(request.remote_ip or request.source_ip, value)
        case "connection.sni":
            return _wildcard(value, request.server_name)
        case "request.auth.principal":
            return _request_principal(value, request.claims)
        case "request.auth.audiences":
            return _claim(["aud"], value, request.claims)
        case "request.auth.presenter":
            return _claim(["azp"], value, request.claims)
    if key.startswith("request.headers["):
        header = _header(request, bracketed(key)[0])
        return header is not None and (value == "*" or _wildcard(value, header))
    if key.startswith("request.auth.claims["):
        return _claim(bracketed(key), value, request.claims)
    if key.startswith("experimental."):
        return False  # Metadata of other filters exists only in a running proxy.
    return request.peer is not None and _peer(key, value, request.peer, policy.namespace)


def _wildcard(pattern: str, text: str) -> bool:
    if pattern == "*":
        return text != ""
    if pattern.startswith("*"):
        return text.endswith(pattern[1:])
    if pattern.endswith("*"):
        return text.startswith(pattern[:-1])
    return pattern == text


def _header(request: Request, name: str) -> str | None:
    if name == ":method":
        return request.method
    if name == ":authority":
        return request.authority
    return next((v for k, v in request.headers.items() if k.lower() == name.lower()), None)


def normalized(path: str) -> str:
    """A request's path as RBAC compares it: without query and fragment, dots resolved."""
    bare = re.split(r"[?#]", path, maxsplit=1)[0]
    segments = bare.replace("\\", "/").split("/")
    decoded = [unquote(part) if unquote(part) in (".", "..") else part for part in segments]
    resolved = (
        posixpath.normpath("/" + "/".join(decoded).lstrip("/"))
        if "." in bare or ("%2e" in bare.lower())
        else bare.replace("\\", "/")
    )
    ends = decoded[-1] in ("", ".", "..") and not resolved.endswith("/")
    return resolved + "/" if ends else resolved


_SEGMENT = r"[a-zA-Z0-9\-._~%!$&'()+,;:@=]+"
_SEGMENTS = r"[a-zA-Z0-9\-._~%!$&'()+,;:@=/]*"


def _path(pattern: str, path: str) -> bool:
    path = normalized(path)
    if MATCH_ONE not in pattern and MATCH_ANY not in pattern:
        return _wildcard(pattern, path)
    pieces = re.split(r"(\{\*\*\}|\{\*\})", pattern)
    kinds = {MATCH_ONE: _SEGMENT, MATCH_ANY: _SEGMENTS}
    return re.fullmatch("".join(kinds.get(p, re.escape(p)) for p in pieces), path) is not None


def _within(address: str, block: str) -> bool:
    try:
        return ipaddress.ip_address(address) in ipaddress.ip_network(block, strict=False)
    except ValueError:
        return False


def _peer(key: str, value: str, peer: str, namespace: str) -> bool:
    trust_domain, _, rest = peer.removeprefix("spiffe://").partition("/")
    match key:
        case "source.principal":
            return _wildcard(value, peer if value == "*" else peer.removeprefix("spiffe://"))
        case "source.trustDomain":
            return value == "*" or _wildcard(value, trust_domain)
        case "source.namespace":
            parts = [re2.escape(part) for part in value.split("*")]
            return re2.fullmatch(f".*/ns/{'.*'.join(parts)}/.*", peer) is not None
        case "source.serviceAccount":
            where, slash, account = value.rpartition("/")
            found = re.match(r"ns/([^/]+)/(?:.+/)?sa/([^/]+)", rest)
            return found is not None and found.groups() == (
                where if slash else namespace,
                account,
            )
    return False


def _request_principal(value: str, claims: Mapping[str, Any] | None) -> bool:
    issuer, subject = (claims or {}).get("iss"), (claims or {}).get("sub")
    if not isinstance(issuer, str) or not isinstance(subject, str):
        return False
    wanted_issuer, slash, wanted_subject = value.rpartition("/")
    if value == "*":
        return bool(issuer and subject)
    if not slash:
        if value.startswith("*"):
            return bool(issuer) and subject.endswith(value[1:])
        if value.endswith("*"):
            return issuer.startswith(value[:-1]) and bool(subject)
        return issuer == value and subject == ""
    if value.startswith("*"):
        return _wildcard(wanted_issuer, issuer) and subject == wanted_subject
    return issuer == wanted_issuer and (
        _wildcard(wanted_subject, subject) if value.endswith("*") else subject == wanted_subject
    )


def _claim(path: list[str], value: str, claims: Mapping[str, Any] | None) -> bool:
    found: Any = claims
    for key in path:
        found = found.get(key) if isinstance(found, Mapping) else None
    if isinstance(found, str) and path[-1] in ("scope", "permission") and len(path) == 1:
        found = found.split(" ")  # jwt_authn makes lists of these.
    values = found if isinstance(found, list) else [found]
    return any(isinstance(item, str) and _wildcard(value, item) for item in values)
