"""Errors and warnings about Istio's resources when they are read."""

from __future__ import annotations

from dataclasses import replace

import pytest

from lab.envoy import translate
from lab.kinds.mesh_config import becomes as mesh_config
from lab.manifests.load import parse
from lab.manifests.read import ManifestError
from tests.support import sample

GATEWAY = """\
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: a}
spec:
  servers:
  - hosts: ["*"]
    port: {number: 443, name: https, protocol: HTTPS}
    tls: {credentialName: a}
"""
KEYS = """\
apiVersion: security.istio.io/v1
kind: RequestAuthentication
metadata: {name: a}
spec:
  jwtRules:
  - issuer: a
    jwks: '{"keys": [{"kty": "oct"}]}'
"""
ERRORS = """\
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: a}
spec:
  host: a
  trafficPolicy:
    outlierDetection:
      consecutiveErrors: 1
"""
OPERATOR = """\
apiVersion: install.istio.io/v1alpha1
kind: IstioOperator
spec:
  components:
    pilot:
      k8s: {}
"""


def test_no_mode_is_passthrough() -> None:
    """As in Istio, whose enumeration begins with it."""
    (warning,) = parse([("x", GATEWAY)]).warnings
    assert "PASSTHROUGH mode does not use certificates, they will be ignored" in warning
    assert not parse([("x", GATEWAY.replace("tls: {", "tls: {mode: SIMPLE, "))]).warnings


def test_a_key_that_is_none_is_refused() -> None:
    with pytest.raises(ManifestError, match=r"x:7: .*jwks has no valid public key"):
        parse([("x", KEYS)])


@pytest.mark.parametrize(("mode", "remarks"), [("SIMPLE", 1), ("ISTIO_MUTUAL", 0)])
def test_only_some_modes_read_a_secret(mode: str, remarks: int) -> None:
    rule = "host: a, trafficPolicy: {tls: {mode: MODE, credentialName: b}}".replace("MODE", mode)
    found = parse([("x", resource("DestinationRule", rule))]).warnings
    assert sum("credentialName b holds at gateways" in line for line in found) == remarks


@pytest.mark.parametrize("variables", ['{"A=B": c}', '{"": c}', '{A: "x\\0y"}'])
def test_a_variable_that_no_process_can_have_is_refused(variables: str) -> None:
    spec = f"environmentVariables: {variables}"
    with pytest.raises(ManifestError, match=r"environmentVariables\..*no process can have"):
        parse([("x", resource("ProxyConfig", spec, "networking.istio.io/v1beta1"))])


def test_a_variable_is_told_to_reach_traces_alone() -> None:
    (warning,) = parse(
        [
            (
                "x",
                resource(
                    "ProxyConfig", "environmentVariables: {A: b}", "networking.istio.io/v1beta1"
                ),
            )
        ]
    ).warnings
    assert "no effect in the lab: there is no agent; customTags.environment" in warning


def test_a_field_that_istio_ignores() -> None:
    (warning,) = parse([("x", ERRORS)]).warnings
    assert warning.startswith("x:8: DestinationRule a: spec.trafficPolicy.outlierDetection")
    assert "consecutive errors is deprecated" in warning


@pytest.mark.parametrize(
    "spec",
    [
        "",
        "{profile: , values: , meshConfig: }",
        "{values: {pilot: {traceSampling: }}}",
        "{meshConfig: {accessLogFile: , defaultConfig: }}",
        "{meshConfig: {defaultConfig: {proxyMetadata: , tracing: }}}",
    ],
)
def test_null_is_unset_in_the_mesh_configuration(spec: str) -> None:
    operator = "apiVersion: install.istio.io/v1alpha1\nkind: IstioOperator\nspec: "
    mesh = mesh_config.installed(parse([("x", operator + spec)]).resources)
    snapshot = replace(sample.with_manifests(""), mesh=mesh)
    plain = replace(snapshot, mesh={})
    pod = snapshot.pods[0]
    assert translate.proxy_config(snapshot, pod) == translate.proxy_config(plain, pod)


def test_a_field_of_another_world() -> None:
    with pytest.raises(ManifestError, match=r"x:6: .*k8s: not supported by the lab: istioctl's"):
        parse([("x", OPERATOR)])


def resource(kind: str, spec: str, version: str = "networking.istio.io/v1") -> str:
    return f"apiVersion: {version}\nkind: {kind}\nmetadata: {{name: a}}\nspec: {{{spec}}}\n"


SERVER = "servers: [{hosts: [HOST], port: {number: 80, name: http, protocol: HTTP}}]"
ROUTE = "hosts: [a], http: [{route: [{destination: {host: a}}], FIELD}]"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (resource("Gateway", SERVER.replace("HOST", "guestbook")), "short names (non FQDN)"),
        (resource("Gateway", SERVER.replace("HOST", "'*a.com'")), 'partial wildcard "*a.com"'),
        (resource("Sidecar", "egress: [{hosts: [./ui]}]"), "short names (non FQDN)"),
        (resource("DestinationRule", "host: 10.0.0.1"), "cannot be all-numeric"),
        (resource("VirtualService", ROUTE.replace("FIELD", "timeout: 1500us")), "ms precision"),
        (
            resource(
                "VirtualService",
                ROUTE.replace("FIELD", "retries: {attempts: 1, retryOn: '5xx, reset'}"),
            ),
            '" reset" is not a valid retryOn policy',
        ),
        (
            resource(
                "VirtualService", ROUTE.replace("FIELD", "retries: {attempts: 1, retryOn: '520'}")
            ),
            '"520" is not a valid retryOn policy',
        ),
        (
            resource("VirtualService", ROUTE.replace("FIELD", "name: a") + ", exportTo: ['~']"),
            "~ (none) is not allowed",
        ),
        (
            resource("Gateway", "gatewayClassName: istio", "gateway.networking.k8s.io/v1"),
            "the lab has no Gateway API",
        ),
        (resource("DestinationRule", "host: a, subsets: [{name: y}]"), "name"),
    ],
)
def test_istio_refuses_it_too(text: str, reason: str) -> None:
    with pytest.raises(ManifestError) as error:
        parse([("x", text)])
    assert reason in str(error.value)


POLICY = "host: a, trafficPolicy: {FIELD}"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (
            resource("DestinationRule", POLICY.replace("FIELD", field)),
            reason,
        )
        for field, reason in (
            (
                "connectionPool: {http: {http2KeepAlive: {timeout: 1s}}}",
                "http2KeepAlive: http2 keepalive interval is required",
            ),
            (
                "loadBalancer: {localityLbSetting: {enabled: false}, zoneAwareLbSetting: {}}",
                "only one of localityLbSetting and zoneAwareLbSetting can be set",
            ),
            (
                "loadBalancer: {zoneAwareLbSetting: {failover: [{from: a, to: a}]}}",
                "zone aware lb failover settings must specify different regions",
            ),
            ("outlierDetection: {outlierDetectionHttpErrorCodes: [99]}", "100"),
        )
    ]
    + [
        (
            resource(
                "VirtualService",
                f"hosts: [a], http: [{{{match}redirect: {{prefixRewrite: /a{more}}}}}]",
            ),
            f"redirect {reason}",
        )
        for match, more, reason in (
            ("", ", uri: /b", "may only specify one of uri or prefix_rewrite"),
            ("match: [{uri: {exact: /b}}], ", "", "prefix_rewrite requires all URI matches"),
        )
    ],
)
def test_fields_that_came_with_istio_1_31(text: str, reason: str) -> None:
    with pytest.raises(ManifestError) as error:
        parse([("x", text)])
    assert reason in str(error.value)


@pytest.mark.parametrize(
    "text",
    [
        resource(
            "DestinationRule", POLICY.replace("FIELD", "loadBalancer: {backendUtilization: {}}")
        ),
        resource("Gateway", SERVER.replace("}]", ", tls: {ecdhCurves: [X25519]}}]")),
        resource(
            "RequestAuthentication",
            "jwtRules: [{issuer: a, presence: REQUIRED}]",
            "security.istio.io/v1",
        ),
        resource(
            "EnvoyFilter",
            "configPatches: [{match: {listener: {filterChain: {transportSocket: {}}}}}]",
        ).replace("/v1\n", "/v1alpha3\n"),
        resource(
            "IstioOperator",
            "meshConfig: {defaultInboundHttpRetryPolicy: {attempts: 1}}",
            "install.istio.io/v1alpha1",
        ),
    ],
)
def test_a_field_of_a_newer_istio_is_known_by_name(text: str) -> None:
    with pytest.raises(ManifestError, match=r"follows Istio 1\.31: this field is new in 1\.32$"):
        parse([("x", text)])


@pytest.mark.parametrize("host", ["'*'", "'*.a.com'", "a.com", "./a.com", "10.0.0.1"])
def test_hosts_of_a_gateway(host: str) -> None:
    assert parse([("x", resource("Gateway", SERVER.replace("HOST", host)))]).resources


def test_an_envoy_filter_takes_durations_of_go() -> None:
    bucket = "token_bucket: {max_tokens: 1, tokens_per_fill: 1, fill_interval: 500ms}"
    kind = "envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit"
    value = f"'@type': type.googleapis.com/{kind}, stat_prefix: a, {bucket}"
    patch = f"operation: INSERT_FIRST, value: {{name: a, typed_config: {{{value}}}}}"
    text = resource("EnvoyFilter", f"configPatches: [{{applyTo: HTTP_FILTER, patch: {{{patch}}}}}]")
    assert parse([("x", text.replace("/v1\n", "/v1alpha3\n"))]).resources
