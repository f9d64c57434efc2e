"""VirtualService: types of the API of Istio.

Written by `python -m scripts.istio_schema` from lab/resources/istio.json.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import AliasChoices, Field

from lab.kinds.types import Destination
from lab.resources.resource import Model
from lab.resources.values import Int32, PositiveDuration, Unsigned


class StringMatch(Model):
    one_of = (("exact", "prefix", "regex"),)
    exact: str | None = None
    prefix: str | None = None
    regex: str | None = None


class CorsPolicy(Model):
    allow_credentials: bool | None = None
    allow_headers: list[str] = Field(default_factory=list)
    allow_methods: list[str] = Field(default_factory=list)
    allow_origin: list[str] = Field(default_factory=list)
    allow_origins: list[StringMatch] = Field(default_factory=list)
    expose_headers: list[str] = Field(default_factory=list)
    max_age: PositiveDuration | None = None
    unmatched_preflights: Literal["UNSPECIFIED", "FORWARD", "IGNORE"] | None = None


class Delegate(Model):
    name: str | None = None
    namespace: str | None = None


class HTTPBody(Model):
    one_of = (("string", "bytes"),)
    bytes: str | None = None
    string: str | None = None


class HTTPDirectResponse(Model):
    body: HTTPBody | None = None
    status: Unsigned


class Percent(Model):
    value: float = 0.0


class FaultAbort(Model):
    one_of = (("httpStatus", "grpcStatus", "http2Error"),)
    grpc_status: str | None = None
    http2_error: str | None = None
    http_status: Int32 | None = None
    percentage: Percent | None = None


class FaultDelay(Model):
    one_of = (("fixedDelay", "exponentialDelay"),)
    exponential_delay: Any = None
    fixed_delay: PositiveDuration | None = None
    percent: Int32 | None = None
    percentage: Percent | None = None


class HTTPFaultInjection(Model):
    abort: FaultAbort | None = None
    delay: FaultDelay | None = None


class HeaderOperations(Model):
    add: dict[str, str] = Field(default_factory=dict)
    remove: list[str] = Field(default_factory=list)
    set: dict[str, str] = Field(default_factory=dict)


class Headers(Model):
    request: HeaderOperations = HeaderOperations()
    response: HeaderOperations = HeaderOperations()


class HTTPMatchRequest(Model):
    authority: StringMatch | None = None
    gateways: list[str] = Field(default_factory=list)
    headers: dict[str, StringMatch] = Field(default_factory=dict)
    ignore_uri_case: bool = False
    method: StringMatch | None = None
    name: str | None = None
    port: Unsigned | None = None
    query_params: dict[str, StringMatch] = Field(default_factory=dict)
    scheme: StringMatch | None = None
    source_labels: dict[str, str] = Field(default_factory=dict)
    source_namespace: str | None = None
    stat_prefix: str | None = None
    uri: StringMatch | None = None
    without_headers: dict[str, StringMatch] = Field(default_factory=dict)


class HTTPMirrorPolicy(Model):
    destination: Destination
    percentage: Percent | None = None


class HTTPRedirect(Model):
    one_of = (("port", "derivePort"),)
    authority: str | None = None
    derive_port: Literal["FROM_PROTOCOL_DEFAULT", "FROM_REQUEST_PORT"] | None = None
    port: Unsigned | None = None
    prefix_rewrite: str | None = None
    redirect_code: Unsigned | None = None
    scheme: str | None = None
    uri: str | None = None


class HTTPRetry(Model):
    attempts: Int32 = 0
    backoff: PositiveDuration | None = None
    per_try_timeout: PositiveDuration | None = None
    retry_ignore_previous_hosts: bool | None = None
    retry_on: str | None = None
    retry_remote_localities: bool | None = None


class RegexRewrite(Model):
    match: str = ""
    rewrite: str = ""


class HTTPRewrite(Model):
    authority: str | None = None
    uri: str | None = None
    uri_regex_rewrite: RegexRewrite | None = None


class HTTPRouteDestination(Model):
    destination: Destination
    headers: Headers | None = None
    weight: Int32 = 0


class HTTPRoute(Model):
    cors_policy: CorsPolicy | None = None
    delegate: Delegate | None = None
    direct_response: HTTPDirectResponse | None = None
    fault: HTTPFaultInjection | None = None
    headers: Headers | None = None
    match: list[HTTPMatchRequest] = Field(default_factory=list)
    mirror: Destination | None = None
    mirror_percent: Unsigned | None = None
    mirror_percentage: Percent | None = None
    mirrors: list[HTTPMirrorPolicy] = Field(default_factory=list)
    name: str | None = None
    redirect: HTTPRedirect | None = None
    retries: HTTPRetry | None = None
    rewrite: HTTPRewrite | None = None
    route: list[HTTPRouteDestination] = Field(default_factory=list)
    timeout: PositiveDuration | None = None
    mirror_percent_snake: Unsigned | None = Field(
        default=None, validation_alias=AliasChoices("mirror_percent")
    )


class L4MatchAttributes(Model):
    destination_subnets: list[str] = Field(default_factory=list)
    gateways: list[str] = Field(default_factory=list)
    port: Unsigned | None = None
    source_labels: dict[str, str] = Field(default_factory=dict)
    source_namespace: str | None = None
    source_subnet: str | None = None


class RouteDestination(Model):
    destination: Destination
    weight: Int32 = 0


class TCPRoute(Model):
    match: list[L4MatchAttributes] = Field(default_factory=list)
    route: list[RouteDestination] = Field(default_factory=list)


class TLSMatchAttributes(Model):
    destination_subnets: list[str] = Field(default_factory=list)
    gateways: list[str] = Field(default_factory=list)
    port: Unsigned | None = None
    sni_hosts: list[str]
    source_labels: dict[str, str] = Field(default_factory=dict)
    source_namespace: str | None = None


class TLSRoute(Model):
    match: list[TLSMatchAttributes]
    route: list[RouteDestination] = Field(default_factory=list)


class VirtualServiceSpec(Model):
    export_to: list[str] | None = None
    gateways: list[str] = Field(default_factory=list)
    hosts: list[str] = Field(default_factory=list)
    http: list[HTTPRoute] = Field(default_factory=list)
    tcp: list[TCPRoute] = Field(default_factory=list)
    tls: list[TLSRoute] = Field(default_factory=list)


class VirtualService(Model):
    spec: VirtualServiceSpec
