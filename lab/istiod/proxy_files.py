"""A proxy's folder: its bootstrap, and its resources as files (xDS on the file system).

A file is replaced by renaming, which Envoy watches for.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import fields
from pathlib import Path

from lab.envoy import secrets
from lab.envoy.bootstrap import CDS_FILE, LDS_FILE, bootstrap
from lab.model import Json, Pod, ProxyConfig
from lab.xds import TYPE_PREFIX, copied, file_name, filter_configs, route_name

BOOTSTRAP_FILE = "bootstrap.json"
SENT_FILE = "istiod.json"
"""The configuration as istiod sends it, before what the network of the lab needs."""

_LISTENER = f"{TYPE_PREFIX}config.listener.v3.Listener"
_CLUSTER = f"{TYPE_PREFIX}config.cluster.v3.Cluster"
_ROUTES = f"{TYPE_PREFIX}config.route.v3.RouteConfiguration"


def files(config: ProxyConfig) -> dict[str, str]:
    """Returns the content of each file by its path; a file comes after those it refers to.

    Secrets are in the places of the references to them, a cluster carries its endpoints instead of
    discovering them, and the listener of one host its routes: Envoy takes one inotify instance for
    each file it watches, and Linux allows a user 128.
    """
    assignments = {item["cluster_name"]: item for item in config.endpoints}
    complete = (_with_endpoints(item, assignments) for item in secrets.clusters(config))
    result = {CDS_FILE: clusters(complete)}
    for item in config.routes:
        if ":" not in item["name"]:
            result[f"rds/{file_name(item['name'])}"] = _response(_ROUTES, [item])
    own = {item["name"]: item for item in config.routes if ":" in item["name"]}
    result[LDS_FILE] = _response(
        _LISTENER, [with_routes(item, own) for item in secrets.listeners(config)]
    )
    return result


def of_type(config: ProxyConfig, kind: str) -> list[str]:
    """Returns the content of the files with the resources of a type; endpoints are in clusters."""
    beginning = {"LDS": LDS_FILE, "RDS": "rds/"}.get(kind, CDS_FILE)
    return [text for name, text in files(config).items() if name.startswith(beginning)]


def with_routes(listener: Json, routes: Mapping[str, Json]) -> Json:
    """Returns a listener that carries some of its route configurations."""
    if not any(route_name(config) in routes for config in filter_configs(listener)):
        return listener
    copy = copied(listener)
    for config in filter_configs(copy):
        if (name := route_name(config)) in routes:
            del config["rds"]
            config["route_config"] = routes[name]
    return copy


def clusters(items: Iterable[Json]) -> str:
    """Returns the content of CDS_FILE."""
    return _response(_CLUSTER, items)


def _with_endpoints(cluster: Json, assignments: Mapping[str, Json]) -> Json:
    if cluster.get("type") != "EDS":
        return cluster
    rest = {key: value for key, value in cluster.items() if key != "eds_cluster_config"}
    name = cluster["name"]
    found = assignments.get(name, {"cluster_name": name})
    return {**rest, "type": "STATIC", "load_assignment": found}


def _response(kind: str, items: Iterable[Json]) -> str:
    """Returns a DiscoveryResponse; its version is a digest of its resources."""
    # A line a resource; `indent` would take Python's own encoder, which is ten times as slow.
    lines = (json.dumps({"@type": kind, **item}) for item in items)
    body = "[" + ",\n ".join(lines) + "]"
    version = hashlib.sha256(body.encode()).hexdigest()[:16]
    return f'{{"version_info": "{version}", "resources": {body}}}\n'


def version(path: Path) -> str:
    """Returns the version of a file's resources; empty when there is no such file."""
    return str(json.loads(read(path) or "{}").get("version_info", ""))


def resources(text: str) -> list[Json]:
    """Returns the resources of a file, without their `@type`."""
    found = json.loads(text)["resources"] if text else []
    return [{key: value for key, value in item.items() if key != "@type"} for item in found]


def prepare(
    folder: Path, pod: Pod, config: ProxyConfig, place: Callable[[Json], Json] = dict
) -> None:
    """Writes everything a proxy needs to start in `folder`; `place` changes its bootstrap."""
    folder.mkdir(parents=True, exist_ok=True)
    write(folder, {BOOTSTRAP_FILE: json.dumps(place(bootstrap(pod)), indent=1)})
    put_back(folder, config)


def keep_sent(folder: Path, config: ProxyConfig) -> None:
    """Writes the configuration that istiod sends a proxy, without the secrets."""
    parts = (part.name for part in fields(config) if part.name != "secrets")
    sent = {name: getattr(config, name) for name in parts}
    write(folder, {SENT_FILE: json.dumps(sent)})


def put_back(folder: Path, config: ProxyConfig) -> None:
    """Makes a configuration the whole content of the folder, without waiting for the proxy."""
    wanted = files(config)
    write(folder, wanted)
    remove_stale(folder, wanted)


def write(folder: Path, wanted: Mapping[str, str]) -> None:
    """Replaces the files whose content differs."""
    for name in changing(folder, wanted):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=folder, prefix=".new-")
        with os.fdopen(handle, "w") as file:
            file.write(wanted[name])
        Path(temporary).replace(path)


def changing(folder: Path, wanted: Mapping[str, str]) -> list[str]:
    """Returns the files whose content differs."""
    return [name for name, content in wanted.items() if read(folder / name) != content]


def read(path: Path) -> str:
    """Returns a file's text; empty when there is no such file."""
    try:
        return path.read_text()
    except FileNotFoundError:
        return ""


def remove_stale(folder: Path, wanted: Mapping[str, str]) -> None:
    """Removes the route configurations that no listener uses any more."""
    for path in (folder / "rds").glob("*.json"):
        if f"rds/{path.name}" not in wanted:
            path.unlink(missing_ok=True)
