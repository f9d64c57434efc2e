"""AuthorizationPolicy: types of the API of Istio.

Written by `python -m scripts.istio_schema` from lab/resources/istio.json.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from lab.kinds.types import LabelSelector
from lab.resources.resource import Model


class Provider(Model):
    name: str | None = None


class Source(Model):
    ip_blocks: list[str] | None = None
    namespaces: list[str] | None = None
    not_ip_blocks: list[str] | None = None
    not_namespaces: list[str] | None = None
    not_principals: list[str] | None = None
    not_remote_ip_blocks: list[str] | None = None
    not_request_principals: list[str] | None = None
    not_service_accounts: list[Annotated[str, Field(max_length=320)]] | None = Field(
        default=None, max_length=16
    )
    not_trust_domains: list[str] | None = None
    principals: list[str] | None = None
    remote_ip_blocks: list[str] | None = None
    request_principals: list[str] | None = None
    service_accounts: list[Annotated[str, Field(max_length=320)]] | None = Field(
        default=None, max_length=16
    )
    trust_domains: list[str] | None = None


class From(Model):
    source: Source | None = None


class Operation(Model):
    hosts: list[str] | None = None
    methods: list[str] | None = None
    not_hosts: list[str] | None = None
    not_methods: list[str] | None = None
    not_paths: list[str] | None = None
    not_ports: list[str] | None = None
    paths: list[str] | None = None
    ports: list[str] | None = None


class To(Model):
    operation: Operation | None = None


class Condition(Model):
    key: str
    not_values: list[str] | None = None
    values: list[str] | None = None


class Rule(Model):
    from_: list[From] | None = Field(default=None, alias="from", max_length=512)
    to: list[To] | None = None
    when: list[Condition] | None = None


class AuthorizationPolicySpec(Model):
    action: Literal["ALLOW", "DENY", "AUDIT", "CUSTOM"] = "ALLOW"
    provider: Provider | None = None
    rules: list[Rule] | None = Field(default=None, max_length=512)
    selector: LabelSelector | None = None
    target_ref: Any = None
    target_refs: Any = None


class AuthorizationPolicy(Model):
    spec: AuthorizationPolicySpec = AuthorizationPolicySpec()
