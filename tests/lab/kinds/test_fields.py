"""No field of an Istio resource is ignored in silence.

Of every field in Istio's own schemas the lab either makes something, or warns, or refuses it. What
it makes something of is in `fields/`, a file a kind; there each field is left out in turn, and the
configuration of some proxy must differ.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from typing import Any

import pytest
import yaml

from lab.envoy import translate
from lab.kinds.mesh_config import becomes as mesh_config
from lab.kinds.mesh_config.checks import MeshConfig, ProxyConfig, ProxyTracing
from lab.manifests import load, registry
from lab.manifests.read import ManifestError
from lab.resources.checks import fields, matches
from lab.resources.fields import model_in
from lab.resources.resource import Kind
from tests.support import sample
from tests.support.fields import COMPANIONS, DOCUMENTS, SCHEMAS

KINDS = {kind.kind: kind for kind in registry.KINDS}

Place = tuple[str | int, ...]
Field = tuple[str, ...]
"""A field by its names; `[]` is any item of a list and `{}` any key of a map."""

REFUSED = {
    "VirtualService": [
        "hosts: [a], http: [{fault: {abort: {http2Error: X}}, route: [{destination: {host: a}}]}]"
    ],
}
"""Specs with fields that are refused by their value, so that no model says it."""

FOR_PEOPLE = {
    "DestinationRule": [
        "host: a, trafficPolicy: {loadBalancer: {localityLbSetting: {"
        "enabled: true, failover: [{from: us, to: eu}]}}}",
        "host: a, trafficPolicy: {loadBalancer: {zoneAwareLbSetting: {failover: []}}}",
    ],
    "Gateway": ["servers: [{name: x}]"],
    "Sidecar": ["ingress: [{port: {number: 1, name: x}}]"],
}
"""Specs with fields from which Istio makes nothing either, or nothing in one locality."""


def fields_of(schema: Any, prefix: Field = ()) -> Iterator[Field]:
    """Every field that a schema has."""
    for name, inner in schema.get("properties", {}).items():
        yield (*prefix, name)
        yield from fields_of(inner, (*prefix, name))
    if schema.get("type") == "array":
        yield from fields_of(schema["items"], (*prefix, "[]"))
    if isinstance(schema.get("additionalProperties"), dict):
        yield from fields_of(schema["additionalProperties"], (*prefix, "{}"))


def places(value: Any, prefix: Place = ()) -> Iterator[Place]:
    """Every key in a document, from the outside in."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield (*prefix, key)
            yield from places(inner, (*prefix, key))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from places(inner, (*prefix, index))


def field(schema: Any, place: Place) -> Field:
    """The field of a schema that is at a place of a document."""
    names: list[str] = []
    for step in place:
        if isinstance(step, int):
            names.append("[]")
            schema = schema.get("items", {})
        elif step in schema.get("properties", {}):
            names.append(step)
            schema = schema["properties"][step]
        else:
            names.append("{}")
            inner = schema.get("additionalProperties")
            schema = inner if isinstance(inner, dict) else {}
    return tuple(names)


def without(document: Any, place: Place) -> Any:
    changed = copy.deepcopy(document)
    inner = changed
    for step in place[:-1]:
        inner = inner[step]
    del inner[place[-1]]
    return changed


def translated(companion: str, document: Any) -> str:
    """The configuration of every proxy; "refused" when the lab does not take the document."""
    try:
        snapshot = sample.with_manifests(companion + yaml.safe_dump(document))
    except ManifestError:
        return "refused"
    if document["kind"] == "IstioOperator":
        snapshot = replace(snapshot, mesh=mesh_config.installed(snapshot.of("IstioOperator")))
    configs = [translate.proxy_config(snapshot, pod) for pod in sample.PODS if pod.proxy != "none"]
    return json.dumps([[c.listeners, c.clusters, c.routes, c.endpoints] for c in configs])


@cache
def warnings(text: str) -> tuple[str, ...]:
    return load.parse([("x", text)]).warnings


@pytest.mark.parametrize(
    ("file", "document"), DOCUMENTS, ids=[f"{f}-{d['metadata']['name']}" for f, d in DOCUMENTS]
)
def test_each_field_makes_a_difference(file: str, document: Any) -> None:
    companion = COMPANIONS.get(file, "")
    complete = translated(companion, document)
    assert complete != "refused"
    said = warnings(yaml.safe_dump(document))
    silent = [
        dotted(place)
        for place in places(document["spec"], ("spec",))
        if translated(companion, without(document, place)) == complete
        and not any(warned(dotted(place), line) for line in said)
    ]
    assert silent == []


def warned(field: str, line: str) -> bool:
    """Whether a warning is about a field, or one below it."""
    return f" {field}: " in line or f" {field}." in line


def dotted(place: Place) -> str:
    return "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in place)[1:]


def shown_of(kind: str) -> set[tuple[Any, str]]:
    """The models and fields that the documents of a kind show."""
    specs = [document["spec"] for _, document in DOCUMENTS if document["kind"] == kind]
    others = [*REFUSED.get(kind, ()), *FOR_PEOPLE.get(kind, ())]
    specs += [yaml.safe_load(f"{{{text}}}") for text in others]
    return {
        way_to(KINDS[kind], field(SCHEMAS[kind], place))[-1]
        for spec in specs
        for place in places({"spec": spec})
    }


@pytest.mark.parametrize("kind", sorted(SCHEMAS))
def test_every_field_of_istio_is_known(kind: str) -> None:
    """Each is refused with a reason, answered with a warning, or in `fields/`.

    A model that is used in several places counts once: its fields are the same everywhere.
    """
    shown = shown_of(kind)
    spec = SCHEMAS[kind]["properties"]["spec"]
    unknown = [
        written(found)
        for found in fields_of(spec, ("spec",))
        if not answered(KINDS[kind], found) and way_to(KINDS[kind], found)[-1] not in shown
    ]
    assert unknown == []


def test_every_field_of_the_mesh_configuration_is_known() -> None:
    """It has no schema to go by; the models say what there is."""
    operator = KINDS["IstioOperator"]
    shown = {
        way_to(operator, tuple("[]" if isinstance(step, int) else step for step in place))[-1]
        for _, document in DOCUMENTS
        if document["kind"] == "IstioOperator"
        for place in places({"spec": document["spec"]})
    } | shown_of("DestinationRule")
    silent = [
        f"{path}.{name}"
        for path, model in models(MeshConfig, "spec.meshConfig")
        for _, name in fields(model)
        if (model, name) not in shown
        and not any(
            check.reason and matches(check.where, f"{path}.{name}") for check in operator.checks
        )
        and name not in NAMES
    ]
    assert silent == []


MESH_CONFIG = [
    "proxyListenPort",
    "proxyInboundListenPort",
    "proxyHttpPort",
    "connectTimeout",
    "hboneIdleTimeout",
    "protocolDetectionTimeout",
    "tcpKeepalive",
    "ingressClass",
    "ingressService",
    "ingressControllerMode",
    "ingressSelector",
    "enableTracing",
    "accessLogFile",
    "accessLogFormat",
    "accessLogEncoding",
    "enableEnvoyAccessLogService",
    "disableEnvoyListenerLog",
    "defaultConfig",
    "outboundTrafficPolicy",
    "inboundTrafficPolicy",
    "configSources",
    "enableAutoMtls",
    "trustDomain",
    "trustDomainAliases",
    "caCertificates",
    "defaultServiceExportTo",
    "defaultVirtualServiceExportTo",
    "defaultDestinationRuleExportTo",
    "rootNamespace",
    "localityLbSetting",
    "zoneAwareLbSetting",
    "dnsRefreshRate",
    "h2UpgradePolicy",
    "inboundClusterStatName",
    "outboundClusterStatName",
    "certificates",
    "serviceSettings",
    "serviceScopeConfigs",
    "enablePrometheusMerge",
    "verifyCertificateAtClient",
    "ca",
    "extensionProviders",
    "defaultProviders",
    "discoverySelectors",
    "pathNormalization",
    "defaultHttpRetryPolicy",
    "meshMTLS",
    "tlsDefaults",
    "defaultTrafficPolicy",
    "serviceEntryVisibility",
]
PROXY_CONFIG = [
    "configPath",
    "binaryPath",
    "serviceCluster",
    "tracingServiceName",
    "drainDuration",
    "discoveryAddress",
    "discoveryRefreshDelay",
    "zipkinAddress",
    "statsdUdpAddress",
    "envoyMetricsServiceAddress",
    "proxyAdminPort",
    "availabilityZone",
    "controlPlaneAuthPolicy",
    "customConfigFile",
    "statNameLength",
    "concurrency",
    "proxyBootstrapTemplatePath",
    "interceptionMode",
    "tracing",
    "sds",
    "envoyAccessLogService",
    "envoyMetricsService",
    "proxyMetadata",
    "runtimeValues",
    "statusPort",
    "extraStatTags",
    "gatewayTopology",
    "terminationDrainDuration",
    "meshId",
    "readinessProbe",
    "proxyStatsMatcher",
    "holdApplicationUntilProxyStarts",
    "caCertificatesPem",
    "image",
    "privateKeyProvider",
    "proxyHeaders",
    "fileFlushInterval",
    "fileFlushMinSizeKb",
    "statsCompression",
    "connectionSettings",
]
TRACING = [
    "zipkin",
    "lightstep",
    "datadog",
    "stackdriver",
    "openCensusAgent",
    "customTags",
    "maxPathTagLength",
    "sampling",
    "tlsSettings",
    "enableIstioTags",
]
"""The fields of Istio 1.31, as its API lists them."""


@pytest.mark.parametrize(
    ("model", "names"),
    [(MeshConfig, MESH_CONFIG), (ProxyConfig, PROXY_CONFIG), (ProxyTracing, TRACING)],
)
def test_every_setting_of_istio_is_known(model: Any, names: list[str]) -> None:
    known = {name for _, name in fields(model)}
    assert set(names) - known == set()
    assert known - set(names) == set()


NAMES = ("trustDomain", "rootNamespace")
"""Settings with one value that the lab takes."""


def models(model: Any, path: str) -> Iterator[tuple[str, Any]]:
    yield path, model
    for attribute, name in fields(model):
        if (inner := model_in(model.model_fields[attribute].annotation)) is not None:
            yield from models(inner[0], f"{path}.{name}{inner[1]}")


@pytest.mark.parametrize("kind", sorted(SCHEMAS))
def test_every_refusal_is_of_a_field_that_istio_has(kind: str) -> None:
    spec = SCHEMAS[kind]["properties"]["spec"]
    known = [written(found) for found in fields_of(spec, ("spec",))]
    checks = [check for check in KINDS[kind].checks if check.reason]
    assert [
        check.where for check in checks if not any(matches(check.where, name) for name in known)
    ] == []


@pytest.mark.parametrize(("kind", "spec"), [(k, spec) for k in REFUSED for spec in REFUSED[k]])
def test_what_is_refused_by_its_value(kind: str, spec: str) -> None:
    head = f"apiVersion: networking.istio.io/v1\nkind: {kind}\nmetadata: {{name: a}}\n"
    with pytest.raises(ManifestError, match="not supported"):
        load.parse([("x", f"{head}spec: {{{spec}}}")])


def way_to(kind: Kind, found: Field) -> list[tuple[Any, str]]:
    """The models along the way to a field, each with its field's name.

    It ends at a model that has no fields of its own to look at: a refused part of Istio, or text.
    """
    model: Any = kind.body
    way: list[tuple[Any, str]] = []
    for name in found:
        if name in ("[]", "{}") or model is None:
            continue
        attribute = next(
            attribute
            for attribute, info in model.model_fields.items()
            if name in spellings(model, attribute)
        )
        way.append((model, dict(fields(model))[attribute]))
        inner = model_in(model.model_fields[attribute].annotation)
        model = inner[0] if inner is not None else None
    return way


def spellings(model: Any, attribute: str) -> list[str]:
    """The names of a field in YAML; `jwksUri` has two."""
    alias = model.model_fields[attribute].validation_alias
    return list(getattr(alias, "choices", [])) or [dict(fields(model))[attribute]]


def written(found: Field) -> str:
    """A field as a check names it: `spec.http[].match[].headers{}`."""
    return ".".join(found).replace(".[]", "[]").replace(".{}", "{}")


def answered(kind: Kind, found: Field) -> bool:
    """Whether a field, or one above it, is refused or is a warning."""
    return any(
        check.reason and matches(check.where, written(found[: end + 1]))
        for end in range(len(found))
        for check in kind.checks
    )
