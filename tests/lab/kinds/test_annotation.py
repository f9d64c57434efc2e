"""The annotation `proxy.istio.io/config` of a pod: what it changes, and what is said of it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import yaml

from lab.envoy import translate
from lab.kinds.mesh_config.annotation import KEY
from lab.manifests.load import parse
from lab.manifests.read import ManifestError
from lab.model import Json
from tests.support import sample

MESH = {"defaultConfig": {"tracing": {"sampling": 50, "maxPathTagLength": 99}}}


def tracing(annotation: str) -> Json:
    """The tracing of a client's outbound requests."""
    pod = replace(sample.PODS[0], annotations={KEY: annotation} if annotation else {})
    snapshot = replace(sample.with_manifests(""), mesh=MESH)
    found = translate.proxy_config(snapshot, pod).listeners
    listener = next(item for item in found if item["name"] == "0.0.0.0_80")
    manager: Json = listener["filter_chains"][0]["filters"][0]["typed_config"]["tracing"]
    return manager


def test_a_field_of_a_pod_replaces_the_meshs_as_a_whole() -> None:
    """As istiod: `tracing` with a sampling has no other of the mesh's settings."""
    whole, own, other = tracing(""), tracing("tracing: {sampling: 10}"), tracing("concurrency: 3")
    assert (whole["random_sampling"], whole["max_path_tag_length"]) == ({"value": 50}, 99)
    assert own["random_sampling"] == {"value": 10}
    assert "max_path_tag_length" not in own
    assert other == whole


def test_null_is_unset() -> None:
    annotation = "{proxyMetadata: , tracing: , proxyHeaders: }"
    assert tracing(annotation) == tracing("")
    parse([("x", manifest("Pod", annotation))])


def manifest(kind: str, annotation: str) -> str:
    metadata: Json = {"name": "a", "annotations": {KEY: annotation}, "labels": {"app": "a"}}
    spec: Json = {"containers": [{"name": "a", "image": "curlimages/curl:8.11.1"}]}
    document: Json = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}
    if kind == "Deployment":
        own: Any = {"selector": {"matchLabels": {"app": "a"}}}
        own |= {"template": {"metadata": {**metadata, "name": "b"}, "spec": spec}}
        document |= {"apiVersion": "apps/v1", "metadata": {"name": "a"}, "kind": kind, "spec": own}
    return yaml.safe_dump(document)


@pytest.mark.parametrize("kind", ["Pod", "Deployment"])
@pytest.mark.parametrize(
    ("annotation", "reason"),
    [
        ("tracing: {sampling: ten}", "could not parse proxy config: tracing.sampling: "),
        ("tracing: {", "could not parse proxy config: "),
        ("[a]", "could not parse proxy config: it is no mapping"),
        ("proxyHeaders: {xForwardedHost: {}}", "proxyHeaders.xForwardedHost: not supported by"),
        ("proxyMetadata: {'A=B': c}", "proxyMetadata.A=B: the lab refuses it: no process can"),
        ("tracing: {zipkin: {address: a}}", "tracing.zipkin: not supported by the lab"),
    ],
)
def test_what_is_refused(kind: str, annotation: str, reason: str) -> None:
    with pytest.raises(ManifestError) as error:
        parse([("x", manifest(kind, annotation))])
    assert reason in str(error.value)


@pytest.mark.parametrize("kind", ["Pod", "Deployment"])
def test_what_has_no_effect_is_a_warning_by_name(kind: str) -> None:
    annotation = "nonsense: 1\nconcurrency: 2\nproxyMetadata: {A: b}\ntracing: {sampling: 1}"
    said = parse([("x", manifest(kind, annotation))]).warnings
    assert len(said) == 3
    assert all(KEY in line for line in said)
    for name in ("nonsense: Istio passes", "concurrency: no effect", "proxyMetadata.A: no effect"):
        assert any(name in line for line in said)


@pytest.mark.parametrize(
    ("key", "remark"),
    [
        ("sidecar.istio.io/proxyCPU", "no effect in the lab: the lab has no resources to limit"),
        ("sidecar.istio.io/statsInclusionRegexps", "no effect in the lab: in the lab Envoy keeps"),
        ("traffic.sidecar.istio.io/excludeOutboundPorts", "no effect in the lab: all of a pod's"),
        ("status.sidecar.istio.io/port", "no effect in the lab: the lab has Envoy alone"),
        ("sidecar.istio.io/injekt", "the lab remarks: Istio has no such annotation"),
    ],
)
def test_annotations_that_the_lab_does_not_read(key: str, remark: str) -> None:
    text = manifest("Deployment", "").replace(KEY, key)
    (warning,) = parse([("x", text)]).warnings
    assert f"spec.template.metadata.annotations.{key}: {remark}" in warning


def test_annotations_that_the_lab_reads() -> None:
    text = manifest("Pod", "true").replace(KEY, "sidecar.istio.io/inject")
    assert parse([("x", text)]).warnings == ()
    assert parse([("x", text.replace("sidecar.istio.io", "example.com"))]).warnings == ()
