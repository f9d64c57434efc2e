"""Golden files of each kind's Envoy configuration: `python -m tests.support.golden`.

Beside each manifest (`virtual_service.yaml`) stands what it changes in the configuration of the
sample's proxies (`virtual_service.envoy.yaml`): of every list and mapping only what is new or
different, with names to find it by. The command writes these files again.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from lab.envoy import translate
from lab.kinds.mesh_config import becomes as mesh_config
from lab.model import Pod, Snapshot
from tests.support import sample

MANIFESTS = sorted((Path(__file__).parents[2] / "lab" / "kinds").glob("*/golden.yaml"))
PODS = tuple(replace(pod, ports={"http": 8080}) for pod in sample.PODS)
SERVICES = tuple(replace(service, ports=service.ports[:1]) for service in sample.SERVICES)
"""The sample with one port each, so that nothing is said twice."""

SHOWN = {"client": PODS[0], "server": PODS[1], "gateway": PODS[7]}
OF_THE_SERVER = (
    "AuthorizationPolicy",
    "EnvoyFilter",
    "PeerAuthentication",
    "ProxyConfig",
    "RequestAuthentication",
    "Telemetry",
)


def output(manifest: Path) -> Path:
    """The file beside a manifest that says what it becomes."""
    return manifest.with_suffix(".envoy.yaml")


def rendered(manifest: Path) -> str:
    """Returns the changes that a manifest makes, as YAML."""
    snapshot = mesh(manifest.read_text())
    (kind,) = (kind for kind in snapshot.config if kind != "Secret")
    name = {"Gateway": "gateway"}.get(kind, "server" if kind in OF_THE_SERVER else "client")
    change = difference(configuration(mesh(""), SHOWN[name]), configuration(snapshot, SHOWN[name]))
    head = (
        f"# Changes that {manifest.name} makes to the proxy of a {name}.\n"
        "# Written by `python -m tests.support.golden`.\n"
    )
    return head + yaml.safe_dump(change, sort_keys=False, width=100, allow_unicode=True)


def mesh(text: str) -> Snapshot:
    """The sample with a manifest."""
    made = replace(sample.with_manifests(text), pods=PODS, services=SERVICES)
    installed = mesh_config.installed(made.of("IstioOperator"))
    quiet = {name: value for name, value in made.mesh.items() if name != "accessLogFile"}
    return replace(made, mesh=quiet | installed)


def configuration(snapshot: Snapshot, pod: Pod) -> Any:
    config = translate.proxy_config(snapshot, pod)
    parts = {
        "listeners": config.listeners,
        "routes": config.routes,
        "clusters": config.clusters,
        "endpoints": [{"name": item["cluster_name"], **item} for item in config.endpoints],
    }
    return json.loads(json.dumps(parts))  # nothing is shared, so YAML needs no anchors


def difference(before: Any, after: Any) -> Any:
    """Returns the parts of `after` that `before` lacks; None when they are equal."""
    if before == after:
        return None
    if isinstance(before, dict) and isinstance(after, dict):
        changed = {
            key: difference(before.get(key), value)
            for key, value in after.items()
            if before.get(key) != value
        }
        gone = {key: "(gone)" for key in before if key not in after}
        name = {"name": after["name"]} if "name" in after else {}
        return {**name, **changed, **gone}
    if isinstance(before, list) and isinstance(after, list):
        return _items(before, after)
    return after


def _items(before: list[Any], after: list[Any]) -> Any:
    old, new = _by_name(before), _by_name(after)
    if old is None or new is None:
        if len(before) != len(after):
            return after
        pairs = zip(before, after, strict=True)
        return [difference(one, other) for one, other in pairs if one != other]
    found = [difference(old.get(name), item) for name, item in new.items() if old.get(name) != item]
    return found + [{**_known_by(old[name]), "is": "(gone)"} for name in old if name not in new]


def _known_by(item: Any) -> dict[str, Any]:
    """Returns an item's identity; a listener's chains have the same name and other matches."""
    return {key: item[key] for key in ("name", "filter_chain_match") if key in item}


def _by_name(items: list[Any]) -> dict[str, Any] | None:
    """Items by their names; None when they have none, or one twice."""
    if not all(isinstance(item, dict) and item.get("name") for item in items):
        return None
    named = {str(_known_by(item)): item for item in items}
    return named if len(named) == len(items) else None


if __name__ == "__main__":
    for manifest in MANIFESTS:
        output(manifest).write_text(rendered(manifest))
