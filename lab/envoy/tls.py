"""Mutual TLS of the mesh: the ports and endpoints that have it, its contexts and identities.

The contexts name two secrets, `default` (the workload's) and `ROOTCA` (the authority's), which
Envoy reads through file-system SDS from the folder that `lab.istiod.authority` fills.
"""

from __future__ import annotations

from lab.kinds.destination_rule import becomes as destination_rule
from lab.kinds.gateway.types import ServerTLSSettings
from lab.kinds.peer_authentication import becomes as peer_authentication
from lab.kinds.services import Endpoint
from lab.kinds.visible import Upstream, View
from lab.model import Json, Pod, Snapshot
from lab.names import server_name
from lab.resources.resource import Origin
from lab.xds import extension, file_source, given

MTLS_ALPN = ("istio", "istio-peer-exchange", "istio-http/1.0", "istio-http/1.1", "istio-h2")
"""A sidecar's ALPN; by it a PERMISSIVE port tells the mesh's TLS from an application's own."""

WORKLOAD_SECRET = "default"  # noqa: S105 - the name Istio gives it
ROOT_SECRET = "ROOTCA"  # noqa: S105 - the name Istio gives it

_TRANSPORT_SOCKET = "envoy.transport_sockets.tls"
_CONTEXTS = "extensions.transport_sockets.tls.v3"
_CIPHER_SUITES = (
    "ECDHE-ECDSA-AES256-GCM-SHA384",
    "ECDHE-RSA-AES256-GCM-SHA384",
    "ECDHE-ECDSA-AES128-GCM-SHA256",
    "ECDHE-RSA-AES128-GCM-SHA256",
    "AES256-GCM-SHA384",
    "AES128-GCM-SHA256",
)
_VERSIONS = {"tls_minimum_protocol_version": "TLSv1_2", "tls_maximum_protocol_version": "TLSv1_3"}


def spiffe_id(trust_domain: str, namespace: str, service_account: str) -> str:
    """Returns the SPIFFE ID of a workload."""
    return f"spiffe://{trust_domain}/ns/{namespace}/sa/{service_account}"


def secret_file(namespace: str, service_account: str) -> str:
    """Returns the file of a service account's certificate, below the folder of certificates."""
    return f"{namespace}/{service_account}.json"


ROOT_FILE = f"{ROOT_SECRET}.json"


def inbound_mode(view: View, target: int) -> tuple[peer_authentication.Mode, Origin]:
    """Returns the mode of a container port, and its origin.

    Without certificates all is plain text.
    """
    if not view.snapshot.certificates:
        return "DISABLE", Origin()
    return peer_authentication.mode(view.snapshot, view.pod, target)


def auto_mtls(upstream: Upstream) -> bool:
    """Returns whether a cluster offers mutual TLS where no rule has `tls`.

    Only endpoints that speak it are meant; of direct connections all must have a sidecar.
    """
    view, host = upstream.view, upstream.host
    rule = view.rules.get(host.name)
    passes = host.resolution == "NONE" or destination_rule.passes_by_rule(rule, upstream.subset)
    if host.headless or passes:
        pods = [end.pod for end in view.endpoints(host, upstream.port.port)]
        if not pods or any(pod is None or pod.proxy != "sidecar" for pod in pods):
            return False
    return (
        bool(view.snapshot.certificates)
        and not host.external
        and peer_authentication.namespace_mode(view.snapshot, host.namespace)[0] != "DISABLE"
        and view.mesh.enable_auto_mtls
    )


def speaks_mtls(upstream: Upstream, endpoint: Endpoint) -> bool:
    """Returns whether a cluster speaks mutual TLS to one of its endpoints."""
    snapshot, settings = upstream.view.snapshot, upstream.policy.tls
    if settings is not None:
        return settings.mode == "ISTIO_MUTUAL"
    if not snapshot.certificates or not offers_mtls(endpoint):
        return False
    return peer_authentication.mode(snapshot, endpoint, endpoint.port)[0] != "DISABLE"


def offers_mtls(endpoint: Endpoint) -> bool:
    """Returns whether the label `tlsMode` of an endpoint says that it speaks mutual TLS."""
    if endpoint.pod is not None:
        return endpoint.pod.proxy == "sidecar"  # Only the sidecar's injection sets it.
    default = "istio" if endpoint.service_account else ""
    return endpoint.labels.get("security.istio.io/tlsMode", default) == "istio"


def downstream_context(snapshot: Snapshot, pod: Pod, *, tcp: bool) -> Json:
    """Returns the transport socket of a filter chain with mutual TLS.

    Every identity of the trust domains may connect; AuthorizationPolicy decides about the rest.
    """
    peers = [{"prefix": f"spiffe://{domain}/"} for domain in snapshot.trust_domains]
    return extension(
        _TRANSPORT_SOCKET,
        f"{_CONTEXTS}.DownstreamTlsContext",
        require_client_certificate=True,
        common_tls_context={
            "tls_params": {**_VERSIONS, "cipher_suites": list(_CIPHER_SUITES)},
            "alpn_protocols": [*(["istio-peer-exchange"] if tcp else []), "h2", "http/1.1"],
            **_secrets(snapshot, pod, {"match_subject_alt_names": peers}),
        },
    )


def gateway_context(
    snapshot: Snapshot, pod: Pod, settings: ServerTLSSettings, *, tcp: bool
) -> Json:
    """Returns the transport socket of a gateway's server of mode ISTIO_MUTUAL.

    Every identity that the authority signed may connect, unless the server names some.
    """
    validation: Json = given(
        match_subject_alt_names=[{"exact": name} for name in settings.subject_alt_names] or None,
        trust_chain_verification="ACCEPT_UNTRUSTED" if settings.insecure_skip_verify else None,
    )
    return extension(
        _TRANSPORT_SOCKET,
        f"{_CONTEXTS}.DownstreamTlsContext",
        require_client_certificate=True,
        common_tls_context={
            "alpn_protocols": [*(["istio-peer-exchange"] if tcp else []), "h2", "http/1.1"],
            **_secrets(snapshot, pod, validation),
        },
    )


def upstream_context(upstream: Upstream) -> Json:
    """Returns the transport socket for mutual TLS towards the endpoints of one Service.

    The server must have one of the identities that the DestinationRule names, else of those that
    the endpoints have. Without any its name is not checked, as in Istio.
    """
    snapshot, own = upstream.view.snapshot, upstream.policy.tls
    names = (own and own.subject_alt_names) or _identities(upstream)
    validation = given(match_subject_alt_names=[{"exact": name} for name in names] or None)
    return extension(
        _TRANSPORT_SOCKET,
        f"{_CONTEXTS}.UpstreamTlsContext",
        sni=sent_server_name(upstream),
        common_tls_context={
            "tls_params": dict(_VERSIONS),
            "alpn_protocols": ["istio-peer-exchange", "istio", *(["h2"] if upstream.http2 else [])],
            **_secrets(snapshot, upstream.view.pod, validation),
        },
    )


def sent_server_name(upstream: Upstream) -> str:
    """Returns the server name that a cluster sends in mutual TLS."""
    own = upstream.policy.tls
    name = server_name(upstream.port.port, upstream.host.name, upstream.subset)
    return (own and own.sni) or name


def _identities(upstream: Upstream) -> list[str]:
    """Returns the identities that the servers of a host may have, with all trust domains."""
    own, *aliases = upstream.view.snapshot.trust_domains
    found = set(upstream.host.subject_alt_names)
    for account in upstream.view.service_accounts(upstream.host):
        namespace, _, name = account.partition("/")
        found.add(spiffe_id(own, namespace, name))
    for identity in [one for one in found if one.startswith("spiffe://")]:
        path = identity.removeprefix("spiffe://").partition("/")[2]
        found.update(f"spiffe://{alias}/{path}" for alias in aliases)
    return sorted(found)


def _secrets(snapshot: Snapshot, pod: Pod, validation: Json) -> Json:
    certificate = secret_file(pod.namespace, pod.service_account)
    return {
        "tls_certificate_sds_secret_configs": [_sds(snapshot, WORKLOAD_SECRET, certificate)],
        "combined_validation_context": {
            "default_validation_context": validation,
            "validation_context_sds_secret_config": _sds(snapshot, ROOT_SECRET, ROOT_FILE),
        },
    }


def _sds(snapshot: Snapshot, name: str, file: str) -> Json:
    return {"name": name, "sds_config": file_source(f"{snapshot.certificates}/{file}")}
