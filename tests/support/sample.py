"""A mesh on paper, for tests that translate without running anything."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from lab.model import Pod, Service, ServicePort, Snapshot
from lab.resources.resource import Resource, Source
from tests.support import harness

NOWHERE = Source("sample", 1)
MESH: Mapping[str, Any] = {
    "accessLogFile": "/dev/stdout",
    "outboundTrafficPolicy": {"mode": "REGISTRY_ONLY"},
    "extensionProviders": [
        {"name": "zipkin", "zipkin": {"service": "zipkin.default.svc.cluster.local", "port": 9411}},
        {
            "name": "json",
            "envoyFileAccessLog": {
                "path": "/dev/stdout",
                "logFormat": {"labels": {"a": "%PROTOCOL%"}},
            },
        },
    ],
}


def pod(
    number: int,
    app: str,
    version: str,
    *,
    proxy: Literal["none", "sidecar", "gateway"] = "sidecar",
    namespace: str = "default",
    labels: Mapping[str, str] | None = None,
) -> Pod:
    return Pod(
        namespace=namespace,
        name=f"{app}-{number}",
        labels={"app": app, "version": version, **(labels or {})},
        annotations={},
        service_account=f"{app}-sa",
        address=f"127.77.0.{number}",
        inside_address=f"127.78.0.{number}",
        ports={"http": 8080, "more": 8081},
        ready=True,
        proxy=proxy,
    )


KEYS = {
    f"https://{name}.example/{rest}": json.dumps(
        {"keys": [{"kty": "oct", "k": "AAAA", "kid": f"{name}/{rest}"}]}
    )
    for name in "bc"
    for rest in ("keys", ".well-known/openid-configuration")
}
"""The key sets of some URLs."""

PODS = (
    pod(1, "client", "1.0"),
    pod(2, "server", "1.0"),
    pod(3, "server", "2.0"),
    pod(4, "other", "1.0"),
    pod(5, "store", "1.0"),
    pod(6, "elsewhere", "1.0", namespace="elsewhere"),
    pod(7, "plain", "1.0", proxy="none"),
    pod(
        8,
        "istio-ingressgateway",
        "1.0",
        proxy="gateway",
        namespace="istio-system",
        labels={"istio": "ingressgateway"},
    ),
    pod(9, "another-gateway", "1.0", proxy="gateway", labels={"istio": "another"}),
)
HTTP = ServicePort("http", 80, 8080, "HTTP")


def service(number: int, name: str, *ports: ServicePort, namespace: str = "default") -> Service:
    return Service(
        namespace=namespace,
        name=name,
        ports=ports or (HTTP,),
        selector={"app": name},
        cluster_ip=f"127.79.0.{number}",
        source=NOWHERE,
    )


SERVICES = (
    service(1, "client"),
    service(2, "server", HTTP, ServicePort("http-more", 8080, 8081, "HTTP")),
    service(3, "other", HTTP, ServicePort("grpc", 8080, 8081, "GRPC")),
    service(4, "store", ServicePort("tcp", 6379, 8080, "TCP")),
    service(5, "elsewhere", namespace="elsewhere"),
    service(6, "zipkin", ServicePort("http", 9411, 9411, "HTTP")),
    service(
        7,
        "istio-ingressgateway",
        ServicePort("http2", 80, 8080, "HTTP"),
        ServicePort("https", 443, 8443, "HTTPS"),
        namespace="istio-system",
    ),
    service(8, "another-gateway", ServicePort("http2", 80, 8080, "HTTP")),
)


def certificate() -> tuple[bytes, bytes]:
    """A certificate that a gateway can show, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "secure.example")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now)
        .not_valid_after(now + timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    plain = serialization.NoEncryption()
    form = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain)
    return made.public_bytes(serialization.Encoding.PEM), key.private_bytes(*form)


def secret() -> str:
    chain, key = certificate()
    return f"""
apiVersion: v1
kind: Secret
metadata: {{name: certificate, namespace: istio-system}}
data:
  tls.crt: {base64.b64encode(chain).decode()}
  tls.key: {base64.b64encode(key).decode()}
---
"""


SECRET = secret()


def snapshot(config: Mapping[str, tuple[Resource, ...]], certificates: str = "/c") -> Snapshot:
    """The mesh with some configuration."""
    return Snapshot(SERVICES, PODS, config, MESH, certificates=certificates, jwks=KEYS)


def with_manifests(text: str, certificates: str = "/c") -> Snapshot:
    """The mesh with these manifests, and a certificate for the gateway. Raises ManifestError."""
    return snapshot(harness.resources(SECRET + text), certificates)
