"""AuthorizationPolicy with action CUSTOM: filters that ask a server of the mesh.

An RBAC filter notes which rule matches, in the dynamic metadata of the request, and the ext_authz
filter after it asks the server about requests with such a note. Where there is no server that can
be asked, the requests are denied.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from lab import names
from lab.kinds.authorization_policy import becomes as authorization
from lab.kinds.mesh_config import becomes as mesh_config
from lab.kinds.mesh_config.checks import (
    GrpcAuthorizer,
    HttpAuthorizer,
    MeshConfig,
)
from lab.kinds.services import Host
from lab.kinds.visible import View, all_hosts
from lab.model import Json, Snapshot
from lab.resources.resource import Resource
from lab.xds import duration, extension, given

PREFIX = "istio-ext-authz-"
BAD = "-deny-due-to-bad-CUSTOM-action"
"""The beginning of the names of rules, and the end where the provider can't be asked."""

_STAT_PREFIX = "istio_ext_authz_"
_NAME = re.compile(r"[a-z0-9]([-a-z0-9]{,61}[a-z0-9])?")
_DEFAULT_TIMEOUT = "600s"


def http_filters(view: View) -> list[Json]:
    """Returns the HTTP filters of a pod's CUSTOM policies."""
    return list(_filters(view, tcp=False))


def network_filters(view: View) -> list[Json]:
    """Returns the network filters of a pod's CUSTOM policies: only gRPC can be asked there."""
    return list(_filters(view, tcp=True))


def _filters(view: View, *, tcp: bool) -> Iterator[Json]:
    noting = authorization.network_filter if tcp else authorization.http_filter
    layer = "network" if tcp else "http"
    by_name: dict[str, list[Resource]] = {}
    for policy in authorization.applicable(view.snapshot, view.pod, "CUSTOM"):
        by_name.setdefault(policy.spec.provider.name, []).append(policy)
    for name, policies in sorted(by_name.items()):
        # istiod lets a pod ask one provider.
        own = _authorizer(view.mesh, name) if len(by_name) == 1 else None
        host = _host(view.snapshot, own.service) if own is not None else None
        names_of = f"{PREFIX}{name}-{{}}" + ("" if host else BAD)
        domains = view.snapshot.trust_domains
        rules = authorization.rules(policies, "DENY", domains, tcp=tcp, name=names_of)
        if own is None or host is None:
            yield noting({"rules": rules})
            continue
        if tcp and isinstance(own, HttpAuthorizer):
            continue
        yield noting({"shadow_rules": rules, "shadow_rules_stat_prefix": _STAT_PREFIX})
        note = {
            "filter": f"envoy.filters.{layer}.rbac",
            "path": [{"key": f"{_STAT_PREFIX}shadow_effective_policy_id"}],
            "value": {"string_match": {"prefix": f"{PREFIX}{name}"}},
        }
        yield extension(
            f"envoy.filters.{layer}.ext_authz",
            f"extensions.filters.{layer}.ext_authz.v3.ExtAuthz",
            transport_api_version="V3",
            filter_enabled_metadata=note,
            **_service(own, host),
            **given(failure_mode_allow=own.fail_open or None),
            **({"stat_prefix": "tcp."} if tcp else _request(own)),
        )


def fault(snapshot: Snapshot, name: str) -> str:
    """Returns the reason why a provider can't be asked; empty if it can."""
    mesh = mesh_config.defaults(snapshot.mesh)
    if mesh_config.provider(mesh, name) is None:
        return f"extensionProviders of the mesh configuration has no {name}"
    own = _authorizer(mesh, name)
    if own is None:
        return f"the provider {name} is none that istiod asks for authorization"
    if _host(snapshot, own.service) is None:
        return f"the provider {name} is at {own.service}, and no one host has this name"
    return ""


def _authorizer(mesh: MeshConfig, name: str) -> HttpAuthorizer | GrpcAuthorizer | None:
    """Returns a provider that istiod takes, and None for others."""
    provider = mesh_config.provider(mesh, name)
    if provider is None or not _NAME.fullmatch(name):
        return None
    own = provider.envoy_ext_authz_http
    if own is not None and "*" in (
        *own.include_headers_in_check,
        *own.include_request_headers_in_check,
        *own.headers_to_upstream_on_allow,
        *own.headers_to_downstream_on_deny,
        *own.headers_to_downstream_on_allow,
    ):
        return None
    return own or provider.envoy_ext_authz_grpc


def _host(snapshot: Snapshot, service: str) -> Host | None:
    """Returns the one host of a name, which may have its namespace before it."""
    namespace, slash, name = service.rpartition("/")
    found = {
        host.namespace: host
        for host in all_hosts(snapshot)
        if host.name == name and (not slash or host.namespace == namespace)
    }
    return next(iter(found.values())) if len(found) == 1 else None


def _service(own: HttpAuthorizer | GrpcAuthorizer, host: Host) -> Json:
    """Returns the field with the server to ask."""
    cluster = names.cluster(own.port, host.name)
    timeout = duration(own.timeout) or _DEFAULT_TIMEOUT
    if not isinstance(own, HttpAuthorizer):
        target = {"cluster_name": cluster, "authority": host.name}
        return {"grpc_service": {"envoy_grpc": target, "timeout": timeout}}
    added = sorted(own.include_additional_headers_in_check.items())
    allowed = {
        **_headers("allowed_upstream_headers", own.headers_to_upstream_on_allow),
        **_headers("allowed_client_headers", own.headers_to_downstream_on_deny),
        **_headers("allowed_client_headers_on_success", own.headers_to_downstream_on_allow),
    }
    headers = {"headers_to_add": [{"key": key, "value": value} for key, value in added]}
    return {
        "http_service": given(
            server_uri={"uri": f"http://{host.name}", "cluster": cluster, "timeout": timeout},
            path_prefix=own.path_prefix or None,
            authorization_request=headers if added else None,
            authorization_response=allowed or None,
        )
    }


def _request(own: HttpAuthorizer | GrpcAuthorizer) -> Json:
    """Returns the fields about a request: what the server is told of it, the answer on errors."""
    body = own.include_request_body_in_check
    http = own if isinstance(own, HttpAuthorizer) else None
    shown = (http.include_request_headers_in_check or http.include_headers_in_check) if http else ()
    return {
        **_headers("allowed_headers", shown),
        **given(
            status_on_error={"code": int(own.status_on_error)} if own.status_on_error else None,
            with_request_body=body.model_dump(exclude_defaults=True) if body else None,
        ),
    }


def _headers(field: str, wanted: Sequence[str]) -> Json:
    """Returns a field with the matchers of headers, if there are any."""
    found = [_header(name) for name in wanted]
    return {field: {"patterns": found}} if found else {}


def _header(name: str) -> Json:
    if name.startswith("*"):
        return {"suffix": name[1:], "ignore_case": True}
    if name.endswith("*"):
        return {"prefix": name[:-1], "ignore_case": True}
    return {"exact": name, "ignore_case": True}
