"""A scenario's cluster, once for the lab and once for istiod: the same pods, addresses and ages.

Manifests are read by the lab. The controllers' part is the lab's offline snapshot (pods, their
addresses and the Services'); EndpointSlices, and the labels of injected pods, are added for istiod.
Istio's own resources go to istiod as they are written, whether the lab takes them or not.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lab.cluster import snapshots
from lab.kinds.mesh_config import becomes as mesh_config
from lab.manifests import load
from lab.manifests.kustomize import kustomization
from lab.manifests.read import read
from lab.model import Pod, Snapshot
from lab.resources.document import documents
from lab.resources.resource import Resource, Source

Json = dict[str, Any]
Text = tuple[str, str]
"""A file's name and its text."""

ISTIO = ".istio.io"
"""The end of the names of Istio's API groups."""

CLUSTER_WIDE = ("Namespace", "IngressClass", "PersistentVolume")
KEPT = ("Namespace", "Secret", "ServiceAccount", "ConfigMap", "EndpointSlice")
"""Kubernetes' kinds that istiod reads as they are."""

MESH: Json = {
    "trustDomain": "cluster.local",
    "rootNamespace": "istio-system",
    "enablePrometheusMerge": True,
    "defaultProviders": {"metrics": ["prometheus"]},
    "defaultConfig": {"discoveryAddress": "istiod.istio-system.svc:15012"},
}
"""The mesh configuration that Istio's Helm chart installs."""

PROFILES: Mapping[str, Json] = {"demo": {"accessLogFile": "/dev/stdout"}}
SAMPLING: Mapping[str, str] = {"demo": "100"}
"""Values of a profile: its mesh configuration, and istiod's variable PILOT_TRACE_SAMPLING."""


@dataclass(frozen=True, slots=True)
class World:
    """The files of a scenario for `istiod config`, and the environment to run it in."""

    files: Mapping[str, str]
    environment: Mapping[str, str]


def texts(paths: Iterable[Path]) -> list[Text]:
    """Returns the texts of files and folders; a kustomization is read as such."""
    found: list[Text] = []
    for path in paths:
        kustomized = (path / "kustomization.yaml").is_file()
        found += kustomization(str(path)) if kustomized else read(str(path))
    return found


def snapshot(files: Iterable[Text], unready: Sequence[str] = ()) -> Snapshot:
    """Returns the lab's snapshot of these manifests. Raises ManifestError where it refuses them."""
    found = snapshots.snapshot(load.parse(files).resources)
    return replace(
        found,
        services=tuple(
            replace(one, cluster_ip=one.cluster_ip and _address(one.cluster_ip))
            for one in found.services
        ),
        pods=tuple(
            replace(pod, address=_address(pod.address), ready=pod.name not in unready)
            for pod in found.pods
        ),
    )


def asked(found: Snapshot) -> list[Pod]:
    """Returns the first pod of each workload that has a proxy: its replicas' are the same."""
    names = {(pod.namespace, pod.name) for pod in found.pods}
    return [pod for pod in found.pods if pod.proxy != "none" and not _replica(pod, names)]


def _replica(pod: Pod, names: Set[tuple[str, str]]) -> bool:
    workload, _, ordinal = pod.name.rpartition("-")
    return ordinal.isdecimal() and ordinal != "0" and (pod.namespace, f"{workload}-0") in names


def _address(address: str) -> str:
    """Returns the address on a cluster that stands for one of the lab's loopback addresses."""
    return address.replace("127.", "10.", 1)


def world(files: Sequence[Text], unready: Sequence[str] = ()) -> World:
    """Returns a scenario for istiod."""
    items = _applied(files)
    plain = [item for item in items if not _group(item).endswith(ISTIO)]
    found = snapshot([("", json.dumps(item)) for item in plain], unready)
    addresses = {(one.namespace, one.name): one.cluster_ip for one in found.services}
    kubernetes = [_kept(item) for item in plain if item["kind"] in KEPT]
    kubernetes += [_pod(pod) for pod in found.pods]
    for item in plain:
        if item["kind"] == "Service":
            service = _service(item, addresses[item["metadata"]["namespace"], _name(item)])
            kubernetes += [service, *_endpoint_slices(service, found.pods)]
            if not item["spec"].get("selector"):
                kubernetes += _mirrored(item["metadata"], plain, found.pods)
    kubernetes += _missing_namespaces(items)
    operators = [item for item in items if item["kind"] == "IstioOperator"]
    rest = [item for item in items if _group(item).endswith(ISTIO) and item not in operators]
    proxies = [_proxy(pod) for pod in asked(found)]
    return World(
        files={
            "k8s.yaml": _stream(kubernetes),
            "istio.yaml": _stream(rest),
            "mesh.yaml": _stream([_mesh(operators)]),
            "proxies.json": json.dumps(proxies, indent=1) + "\n",
        },
        environment=_environment(operators),
    )


def _stream(items: Iterable[Json]) -> str:
    return "\n---\n".join(json.dumps(item, indent=1) for item in items) + "\n"


def _group(item: Json) -> str:
    return str(item["apiVersion"].rpartition("/")[0])


def _name(item: Json) -> str:
    return str(item["metadata"]["name"])


def _applied(files: Iterable[Text]) -> list[Json]:
    """Returns what `apply` leaves: of two with one name the later, with the age of the first."""
    found: dict[tuple[str, ...], Json] = {}
    for _, text in files:
        for document in documents(text):
            value = document.value
            for item in value["items"] if value["kind"] == "List" else [value]:
                meta = dict(item.get("metadata") or {"name": "installed-state"})
                if item["kind"] not in CLUSTER_WIDE:
                    meta.setdefault("namespace", "default")
                key = (_group(item), item["kind"], meta.get("namespace", ""), meta["name"])
                age = list(found).index(key) if key in found else len(found)
                meta["creationTimestamp"] = f"2026-01-01T00:{age // 60:02d}:{age % 60:02d}Z"
                found[key] = {**item, "metadata": meta}
    return list(found.values())


def _kept(item: Json) -> Json:
    """Returns a resource as the API server stores it."""
    if item["kind"] != "Secret" or "stringData" not in item:
        return item
    encoded = {
        key: base64.b64encode(str(value).encode()).decode()
        for key, value in item["stringData"].items()
    }
    rest = {key: value for key, value in item.items() if key != "stringData"}
    return {**rest, "data": {**item.get("data", {}), **encoded}}


def _missing_namespaces(items: Sequence[Json]) -> Iterator[Json]:
    declared = {_name(item) for item in items if item["kind"] == "Namespace"}
    used = {item["metadata"].get("namespace", "") for item in items}
    for name in sorted(used - declared - {""}):
        labels = {"kubernetes.io/metadata.name": name}
        yield {
            "apiVersion": "v1",
            "kind": "Namespace",
            "metadata": {"name": name, "labels": labels},
        }


def _mesh(operators: Sequence[Json]) -> Json:
    profiles = [PROFILES.get(item["spec"].get("profile", ""), {}) for item in operators]
    own = [item["spec"].get("meshConfig") or {} for item in operators]
    layers = [MESH, *profiles, *own]
    return mesh_config.installed(_operator({"meshConfig": layer}) for layer in layers)


def _operator(spec: Json) -> Resource:
    source = Source("", 0)
    return Resource("", "IstioOperator", "", "", None, source, raw={"spec": spec})


def _environment(operators: Sequence[Json]) -> dict[str, str]:
    """Returns istiod's environment variables, as the Helm chart sets them."""
    found: dict[str, str] = {}
    for item in operators:
        spec = item["spec"]
        if sampling := SAMPLING.get(spec.get("profile", "")):
            found["PILOT_TRACE_SAMPLING"] = sampling
        pilot = spec.get("values", {}).get("pilot", {})
        if "traceSampling" in pilot:
            found["PILOT_TRACE_SAMPLING"] = str(pilot["traceSampling"])
        found |= {key: str(value) for key, value in pilot.get("env", {}).items()}
    return found


def _labels(pod: Pod) -> dict[str, str]:
    """Returns a pod's labels with those that the injector adds; a gateway's has no `tlsMode`."""
    labels = {key: str(value) for key, value in pod.labels.items()}
    if pod.proxy == "none":
        return labels
    workload = pod.name.rpartition("-")[0] or pod.name
    named = labels.get("app.kubernetes.io/name") or labels.get("app") or workload
    version = labels.get("app.kubernetes.io/version") or labels.get("version") or "latest"
    return {
        "service.istio.io/canonical-name": named,
        "service.istio.io/canonical-revision": version,
        **({"security.istio.io/tlsMode": "istio"} if pod.proxy == "sidecar" else {}),
        **labels,
    }


def _pod(pod: Pod) -> Json:
    ports = [
        {"name": "" if name.isdecimal() else name, "containerPort": port, "protocol": "TCP"}
        for name, port in pod.ports.items()
    ]
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": pod.name,
            "namespace": pod.namespace,
            "labels": _labels(pod),
            "annotations": dict(pod.annotations),
        },
        "spec": {
            "serviceAccountName": pod.service_account,
            "containers": [{"name": "app", "image": "app", "ports": ports}],
        },
        "status": {
            "phase": "Running",
            "podIP": pod.address,
            "podIPs": [{"ip": pod.address}],
            "conditions": [{"type": "Ready", "status": str(pod.ready)}],
        },
    }


def _proxy(pod: Pod) -> Json:
    return {
        "name": pod.name,
        "namespace": pod.namespace,
        "ip": pod.address,
        "labels": _labels(pod),
        "annotations": dict(pod.annotations),
        "service_account": pod.service_account,
        "type": "router" if pod.proxy == "gateway" else "sidecar",
    }


def _service(item: Json, address: str | None) -> Json:
    """Returns a Service with the fields that the API server fills in."""
    ports = [
        {"protocol": "TCP", "targetPort": port["port"], **port}
        for port in item["spec"].get("ports", [])
    ]
    given = {"clusterIP": address, "clusterIPs": [address]} if address else {}
    return {**item, "spec": {**item["spec"], **given, "ports": ports}}


def _endpoint_slices(service: Json, pods: Iterable[Pod]) -> Iterator[Json]:
    """Yields the EndpointSlices of a Service, one for each set of resolved target ports."""
    meta, spec = service["metadata"], service["spec"]
    selector: dict[str, str] = spec.get("selector") or {}
    slices: dict[str, list[Pod]] = {}
    for pod in pods if selector else ():
        if pod.namespace == meta["namespace"] and selector.items() <= pod.labels.items():
            slices.setdefault(json.dumps(_ports(spec["ports"], pod)), []).append(pod)
    for number, (ports, members) in enumerate(slices.items()):
        yield {
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "addressType": "IPv4",
            "metadata": {
                "name": f"{meta['name']}-{number}",
                "namespace": meta["namespace"],
                "labels": {"kubernetes.io/service-name": meta["name"]},
            },
            "ports": json.loads(ports),
            "endpoints": [_endpoint(pod) for pod in members],
        }


def _mirrored(service: Json, items: Iterable[Json], pods: Iterable[Pod]) -> Iterator[Json]:
    """Yields the EndpointSlices that Kubernetes makes of the Endpoints of a Service.

    istiod finds the pod of an address if it knows the pod first; by a reference it always does.
    """
    known = {pod.address: pod for pod in pods}
    place = (service["name"], service["namespace"])
    for item in items:
        if item["kind"] != "Endpoints" or (_name(item), item["metadata"]["namespace"]) != place:
            continue
        for number, subset in enumerate(item["subsets"]):
            yield {
                "apiVersion": "discovery.k8s.io/v1",
                "kind": "EndpointSlice",
                "addressType": "IPv4",
                "metadata": {
                    "name": f"{_name(item)}-{number}",
                    "namespace": item["metadata"]["namespace"],
                    "labels": {
                        "kubernetes.io/service-name": _name(item),
                        "endpointslice.kubernetes.io/managed-by": (
                            "endpointslicemirroring-controller.k8s.io"
                        ),
                    },
                },
                "ports": [{"protocol": "TCP", **port} for port in subset["ports"]],
                "endpoints": [
                    {
                        "addresses": [address["ip"]],
                        "conditions": {"ready": True},
                        **({"targetRef": _reference(pod)} if pod else {}),
                    }
                    for address in subset["addresses"]
                    for pod in [known.get(address["ip"])]
                ],
            }


def _ports(ports: Iterable[Json], pod: Pod) -> list[Json]:
    found = []
    for port in ports:
        target = port["targetPort"]
        number = pod.ports.get(target) if isinstance(target, str) else target
        if number is not None:
            name = port.get("name", "")
            found.append({"name": name, "port": number, "protocol": port["protocol"]})
    return found


def _endpoint(pod: Pod) -> Json:
    state = {"ready": pod.ready, "serving": pod.ready, "terminating": False}
    return {"addresses": [pod.address], "conditions": state, "targetRef": _reference(pod)}


def _reference(pod: Pod) -> Json:
    return {"kind": "Pod", "name": pod.name, "namespace": pod.namespace}
