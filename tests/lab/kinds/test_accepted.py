"""Envoy accepts what the lab makes of anything: of this repository, and of any resource that the
lab takes. What the lab does not take it refuses with a reason."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from lab.cluster import snapshots
from lab.envoy import translate
from lab.istiod import authority, proxy_files
from lab.istiod.push import validate
from lab.manifests import load
from lab.manifests.read import ManifestError
from lab.model import Pod, ProxyConfig, Snapshot
from tests.support import sample
from tests.support.fields import COMPANIONS, DOCUMENTS, SCHEMAS
from tests.support.properties import examples
from tests.support.repository import ISTIO, ROOT, name_of


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Certificates for every account of the guestbook and of the sample."""
    folder = tmp_path_factory.mktemp("certificates")
    now = datetime.now(UTC)
    accounts = {(pod.namespace, pod.service_account) for pod in sample.PODS}
    accounts |= {(pod.namespace, pod.service_account) for pod in guestbook(*FOR_THE_LAB).pods}
    authority.issue(authority.load(folder / "ca", now), folder / "sds", sorted(accounts), now)
    return folder / "sds"


# --- the repository -------------------------------------------------------------------------------

BUILTIN = ROOT / "lab" / "cluster" / "gateway.yaml"
BASE = [
    ROOT / "k8s" / "base",
    BUILTIN,
    ISTIO / "install" / "istio.yaml",
    ISTIO / "install" / "telemetry.yaml",
    ISTIO / "02-ingress" / "gateway.yaml",
    ISTIO / "02-ingress" / "virtual-service.yaml",
]
EVERY_FILE = sorted(
    path for path in ISTIO.rglob("*.yaml") if not path.match("check/*") and "helm" not in path.parts
)


def for_clusters(path: Path) -> bool:
    """Whether a file says how pods and addresses of a real cluster are; the lab refuses it."""
    return path.parent == ISTIO / "install" and path.stem in ("cni", "gke", "kind")


FOR_CLUSTERS = [path for path in EVERY_FILE if for_clusters(path)]
FOR_THE_LAB = [path for path in EVERY_FILE if not for_clusters(path)]


def guestbook(*files: Path, certificates: Path | None = None) -> Snapshot:
    """The guestbook as it is installed, and some more."""
    found = snapshots.snapshot(load.load([str(file) for file in (*BASE, *files)]).resources)
    return found if certificates is None else replace(found, certificates=str(certificates))


def proxies(snapshot: Snapshot) -> list[Pod]:
    """One pod of each kind: those of one workload have the same configuration."""
    pods = {tuple(sorted(pod.labels.items())): pod for pod in snapshot.pods}
    return [pod for pod in pods.values() if pod.proxy != "none"]


def refusals(snapshot: Snapshot, pods: Iterable[Pod], folder: Path) -> list[str]:
    """Returns Envoy's errors about the configurations of some pods."""
    found = []
    for pod in pods:
        config = translate.proxy_config(snapshot, pod)
        place = folder / pod.name
        proxy_files.prepare(place, pod, config)
        if (reason := validate(place)) is not None:
            found.append(f"{pod.name}: {reason}")
    return found


@pytest.mark.parametrize("file", FOR_CLUSTERS, ids=name_of)
def test_a_manifest_for_clusters_is_refused(file: Path) -> None:
    with pytest.raises(ManifestError, match="not supported by the lab"):
        load.load([str(file)])


@pytest.fixture(scope="module")
def plain(certificates: Path) -> dict[str, ProxyConfig]:
    """The configurations of the guestbook's proxies, as it is installed."""
    snapshot = guestbook(certificates=certificates)
    return {pod.name: translate.proxy_config(snapshot, pod) for pod in proxies(snapshot)}


@pytest.mark.parametrize("file", FOR_THE_LAB, ids=name_of)
def test_every_manifest_of_the_repository(
    file: Path, plain: dict[str, ProxyConfig], certificates: Path, tmp_path: Path
) -> None:
    snapshot = guestbook(file, certificates=certificates)
    changed = [
        pod
        for pod in proxies(snapshot)
        if plain.get(pod.name) != translate.proxy_config(snapshot, pod)
    ]
    assert refusals(snapshot, changed, tmp_path) == []


def test_the_guestbook_itself(certificates: Path, tmp_path: Path) -> None:
    snapshot = guestbook(certificates=certificates)
    pods = proxies(snapshot)
    assert len(pods) == 6
    assert refusals(snapshot, pods, tmp_path) == []


def test_a_refusal_would_be_seen(certificates: Path, tmp_path: Path) -> None:
    snapshot = guestbook(certificates=certificates)
    pod = proxies(snapshot)[0]
    config = translate.proxy_config(snapshot, pod)
    config.clusters[0]["lb_policy"] = "NONE_SUCH"
    proxy_files.prepare(tmp_path, pod, config)
    assert "NONE_SUCH" in str(validate(tmp_path))


# --- any resource ---------------------------------------------------------------------------------

TEXTS = [
    "", "a", "*", "**", "a*", "*.example", "server", "server.default.svc.cluster.local", "v1",
    "default", "istio-system", ".", "~", "./*", "*/*", "/", "/a", "/a/{*}", "a b", "é", "%", "%%",
    "%REQ(x)%", "%(", "x-a", ":path", "host", "X_Y", "1s", "0s", "-1s", "0.0001s", "1h1m", "1.5s",
    "9999999999h", "500", "5xx", "99", ".*", "(", "[a-z]+", "a{2000}", "(?=a)", "HTTP", "TLS",
    "TCP", "UDP", "https", "10.0.0.1", "10.0.0.0/8", "::1", "127.0.0.1", "x" * 300, "a\nb", "\x00",
    "OK", "UNAVAILABLE", "16", "request.headers[x]", "source.ip", "spiffe://x/y", "ingress/public",
    "mesh", "{}", '{"keys":[]}', '{"keys":[{"kty":"RSA"}]}', "https://a.example/keys",
    "/etc/ssl/certs/ca-certificates.crt",
]  # fmt: skip
NUMBERS = [-1, 0, 1, 2, 5, 80, 99, 100, 101, 200, 307, 418, 443, 600, 8080, 65535, 65536, 2**31 - 1]
FRACTIONS = [-1.0, 0.0, 0.00001, 0.5, 33.3, 100.0, 100.1, 1e300]
KEYS = ["a", "x-a", "app", "version", "8080", "http", "@request.auth.claims.a", "", "*", "host"]


def values(schema: Any) -> st.SearchStrategy[Any]:
    """Anything of the right type."""
    if "enum" in schema:
        return st.sampled_from(schema["enum"])
    match schema.get("type"):
        case "boolean":
            return st.booleans()
        case "integer":
            low = schema.get("minimum", -(2**31))
            return st.sampled_from([number for number in NUMBERS if number >= low])
        case "number":
            return st.sampled_from(FRACTIONS)
        case "array":
            return st.lists(values(schema["items"]), max_size=2)
        case "object":
            return objects(schema)
    return st.sampled_from(TEXTS)


def objects(schema: Any) -> st.SearchStrategy[Any]:
    known = schema.get("properties", {})
    if not known:
        inner = schema.get("additionalProperties")
        if not isinstance(inner, dict):
            return st.just({})
        return st.dictionaries(
            st.sampled_from(KEYS), st.deferred(lambda: values(inner)), max_size=2
        )
    required = {name: values(known[name]) for name in schema.get("required", ())}

    def chosen(names: list[str]) -> st.SearchStrategy[Any]:
        return st.fixed_dictionaries(required | {name: values(known[name]) for name in names})

    return st.lists(st.sampled_from(sorted(known)), max_size=2, unique=True).flatmap(chosen)


WITH_SCHEMA = [item for item in DOCUMENTS if item[1]["kind"] != "IstioOperator"]


@st.composite
def resources(draw: st.DrawFn) -> tuple[str, Any]:
    """A resource of `fields/`, with a few fields replaced, added or left out."""
    file, document = draw(st.sampled_from(WITH_SCHEMA))
    document = copy.deepcopy(document)
    schema = SCHEMAS[document["kind"]]["properties"]["spec"]
    for _ in range(draw(st.integers(1, 3))):
        document["spec"] = changed(draw, document["spec"], schema)
    return file, document


def changed(draw: st.DrawFn, value: Any, schema: Any) -> Any:
    """A value with one change somewhere inside."""
    if isinstance(value, dict) and schema.get("properties"):
        known = schema["properties"]
        way = draw(st.sampled_from(["inside", "inside", "inside", "inside", "set", "drop"]))
        present = sorted(name for name in value if name in known)
        if way == "inside" and present:
            name = draw(st.sampled_from(present))
            return {**value, name: changed(draw, value[name], known[name])}
        if way == "drop" and present:
            gone = draw(st.sampled_from(present))
            return {name: item for name, item in value.items() if name != gone}
        name = draw(st.sampled_from(sorted(known)))
        return {**value, name: draw(values(known[name]))}
    if isinstance(value, list) and value and draw(st.booleans()):
        index = draw(st.integers(0, len(value) - 1))
        inner = changed(draw, value[index], schema["items"])
        return [*value[:index], inner, *value[index + 1 :]]
    return draw(values(schema))


ASKED = [sample.PODS[0], sample.PODS[1], sample.PODS[7]]
"""The proxies of a client, of the server, and of the gateway."""


def configurations(snapshot: Snapshot) -> dict[str, ProxyConfig]:
    return {pod.name: translate.proxy_config(snapshot, pod) for pod in ASKED}


ONLY_ENVOY_KNOWS = re.compile("Invalid path|Failed to load|filter expression")
"""Envoy's errors about files that a DestinationRule names and this machine does not have, and
about expressions of a Telemetry, which nothing but Envoy can read."""


@examples(80)
@given(resource=resources())
def test_accepted_by_envoy_or_refused_with_a_reason(
    resource: tuple[str, Any], certificates: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    file, document = resource
    companion = COMPANIONS.get(file, "")
    text = companion + yaml.safe_dump(document)
    try:
        snapshot = sample.with_manifests(text, str(certificates))
    except ManifestError as error:
        for line in error.lines:
            assert re.match(rf"test\.yaml:\d+: {document['kind']} \S+: \S+.*: .+", line), line
        return
    before = configurations(sample.with_manifests(companion, str(certificates)))
    after = configurations(snapshot)
    pods = [pod for pod in ASKED if after[pod.name] != before[pod.name]]
    if document["kind"] == "EnvoyFilter":
        return  # It says in Envoy's own words what only Envoy can judge.
    said = refusals(snapshot, pods, tmp_path_factory.mktemp("envoy"))
    assert [line for line in said if not ONLY_ENVOY_KNOWS.search(line)] == [], yaml.safe_dump(
        document
    )
