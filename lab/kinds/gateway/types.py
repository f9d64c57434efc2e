"""Gateway: types of the API of Istio.

Written by `python -m scripts.istio_schema` from lab/resources/istio.json.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from lab.resources.resource import Model
from lab.resources.values import Unsigned


class GatewayPort(Model):
    name: str
    number: Unsigned
    protocol: str
    target_port: Any = None


class ServerTLSSettings(Model):
    ca_cert_credential_name: Any = None
    ca_certificates: Any = None
    ca_crl: Any = None
    cipher_suites: list[str] = Field(default_factory=list)
    credential_name: str | None = None
    credential_names: list[str] = Field(default_factory=list, min_length=1, max_length=2)
    https_redirect: bool = False
    insecure_skip_verify: bool | None = None
    max_protocol_version: Literal["TLS_AUTO", "TLSV1_0", "TLSV1_1", "TLSV1_2", "TLSV1_3"] | None = (
        None
    )
    min_protocol_version: Literal["TLS_AUTO", "TLSV1_0", "TLSV1_1", "TLSV1_2", "TLSV1_3"] | None = (
        None
    )
    mode: (
        Literal[
            "PASSTHROUGH", "SIMPLE", "MUTUAL", "AUTO_PASSTHROUGH", "ISTIO_MUTUAL", "OPTIONAL_MUTUAL"
        ]
        | None
    ) = None
    private_key: Any = None
    server_certificate: Any = None
    subject_alt_names: list[str] = Field(default_factory=list)
    tls_certificates: Any = None
    verify_certificate_hash: list[str] = Field(default_factory=list)
    verify_certificate_spki: list[str] = Field(default_factory=list)


class Server(Model):
    bind: Any = None
    default_endpoint: Any = None
    hosts: list[str]
    name: str | None = None
    port: GatewayPort
    tls: ServerTLSSettings | None = None


class GatewaySpec(Model):
    selector: dict[str, str] = Field(default_factory=dict)
    servers: list[Server] = Field(default_factory=list)


class Gateway(Model):
    spec: GatewaySpec
