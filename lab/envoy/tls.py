"""The mesh's own TLS: the contexts a proxy serves and dials with, and the names in them.

Certificates are not in here: the contexts name two secrets, `default` (the workload's) and `ROOTCA`
(the authority's), which Envoy reads through file-system SDS from the folder `authority` fills.
"""

from __future__ import annotations

from collections.abc import Sequence

from lab.model import Json, Pod, Snapshot
from lab.xds import extension

MTLS_ALPN = ("istio", "istio-peer-exchange", "istio-http/1.0", "istio-http/1.1", "istio-h2")
"""The protocols by which a PERMISSIVE port tells the mesh's TLS from an application's own."""

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
    """The name in a workload's certificate."""
    return f"spiffe://{trust_domain}/ns/{namespace}/sa/{service_account}"


def secret_file(namespace: str, service_account: str) -> str:
    """Where a service account's certificate is, below the folder of certificates."""
    return f"{namespace}/{service_account}.json"


ROOT_FILE = f"{ROOT_SECRET}.json"


def downstream_context(snapshot: Snapshot, pod: Pod) -> Json:
    """The transport socket of a chain that takes mutual TLS from any workload of the mesh.

    Who the peer is matters to AuthorizationPolicy, not here: every identity of the trust domain may
    connect.
    """
    peers = {"san_type": "URI", "matcher": {"prefix": f"spiffe://{snapshot.trust_domain}/"}}
    return extension(
        _TRANSPORT_SOCKET,
        f"{_CONTEXTS}.DownstreamTlsContext",
        require_client_certificate=True,
        common_tls_context={
            "tls_params": {**_VERSIONS, "cipher_suites": list(_CIPHER_SUITES)},
            "alpn_protocols": ["h2", "http/1.1"],
            **_secrets(snapshot, pod, [peers]),
        },
    )


def upstream_context(
    snapshot: Snapshot, pod: Pod, service_accounts: Sequence[str], sni: str, http2: bool
) -> Json:
    """The transport socket for mutual TLS towards the endpoints of one Service.

    `service_accounts` are `namespace/name` or SPIFFE identities; the server must be one of them.
    Without any the server's name is not checked, as in Istio.
    """
    identities = dict.fromkeys(_identity(snapshot, account) for account in service_accounts)
    names = [{"san_type": "URI", "matcher": {"exact": name}} for name in sorted(identities)]
    return extension(
        _TRANSPORT_SOCKET,
        f"{_CONTEXTS}.UpstreamTlsContext",
        sni=sni,
        common_tls_context={
            "tls_params": dict(_VERSIONS),
            "alpn_protocols": ["istio-peer-exchange", "istio", *(["h2"] if http2 else [])],
            **_secrets(snapshot, pod, names),
        },
    )


def _identity(snapshot: Snapshot, account: str) -> str:
    if account.startswith("spiffe://"):
        return account
    namespace, _, name = account.partition("/")
    return spiffe_id(snapshot.trust_domain, namespace, name)


def _secrets(snapshot: Snapshot, pod: Pod, names: list[Json]) -> Json:
    certificate = secret_file(pod.namespace, pod.service_account)
    return {
        "tls_certificate_sds_secret_configs": [_sds(snapshot, WORKLOAD_SECRET, certificate)],
        "combined_validation_context": {
            "default_validation_context": {"match_typed_subject_alt_names": names} if names else {},
            "validation_context_sds_secret_config": _sds(snapshot, ROOT_SECRET, ROOT_FILE),
        },
    }


def _sds(snapshot: Snapshot, name: str, file: str) -> Json:
    return {
        "name": name,
        "sds_config": {
            "path_config_source": {"path": f"{snapshot.certificates}/{file}"},
            "resource_api_version": "V3",
        },
    }
