"""Pushes: a new configuration for a running Envoy, and why Envoy refuses one."""

from __future__ import annotations

import json
import re
import subprocess
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

import httpx

from lab.envoy.bootstrap import CDS_FILE, LDS_FILE
from lab.istiod import process
from lab.istiod.process import binary
from lab.istiod.proxy_files import (
    BOOTSTRAP_FILE,
    changing,
    clusters,
    files,
    read,
    remove_stale,
    resources,
    with_routes,
    write,
)
from lab.model import ProxyConfig

TIMEOUT = 10.0
"""Seconds a proxy gets to take an update."""

_REASON = re.compile(r"error initializing configuration '[^']*': (.*)", re.DOTALL)
"""The reason in the output of `envoy --mode validate`."""


class RejectedError(RuntimeError):
    """Envoy refused a configuration; the one before is still in force."""


def push(folder: Path, config: ProxyConfig) -> bool:
    """Gives a running proxy a new configuration; returns whether it drains connections now.

    Makes before it breaks, so that no request meets a route to a missing cluster: first new
    clusters, then routes and listeners; unused clusters are removed last. Raises RejectedError
    when Envoy refuses any of it or does not take it in time, and leaves the files as they are.
    """
    wanted = files(config)
    kept = {item["name"] for item in config.clusters}
    leaving = [item for item in resources(read(folder / CDS_FILE)) if item["name"] not in kept]
    other_listeners = bool(changing(folder, {LDS_FILE: wanted[LDS_FILE]}))
    both = {CDS_FILE: clusters([*resources(wanted[CDS_FILE]), *leaving])}
    others = {name: text for name, text in wanted.items() if name != CDS_FILE}
    with process.admin(folder, TIMEOUT) as admin:
        for stage in (both, others, {CDS_FILE: wanted[CDS_FILE]}):
            _write_and_wait(admin, folder, stage)
        remove_stale(folder, wanted)
        return other_listeners and _draining(admin)


def drains(folder: Path) -> bool:
    """Returns whether open connections of a proxy still go by a listener's former filters."""
    with process.admin(folder, TIMEOUT) as admin:
        return _draining(admin)


def _draining(admin: httpx.Client) -> bool:
    found = _stats(admin, "listener_manager.total_.*_draining$")
    return any(value != "0" for value in found.values())


def _write_and_wait(admin: httpx.Client, folder: Path, stage: Mapping[str, str]) -> None:
    changed = changing(folder, stage)
    if not changed:
        return
    listeners = stage.get(LDS_FILE, "")
    watched = [
        name
        for name in changed
        if name in (CDS_FILE, LDS_FILE) or json.dumps(f"./{name}") in listeners
    ]
    rejected = _rejections(_stats(admin, _UPDATES))
    write(folder, stage)
    versions = {json.dumps(json.loads(stage[name])["version_info"]) for name in watched}
    deadline, pause = time.monotonic() + TIMEOUT, 0.005
    while time.monotonic() < deadline:
        # Each look takes Envoy a millisecond, as it goes through all its statistics.
        time.sleep(pause)
        pause = min(1.5 * pause, 0.05)
        report = _stats(admin, _UPDATES)
        if _rejections(report) > rejected:
            raise RejectedError(validate(folder) or "Envoy refused an update; see its log")
        warming = any(report.get(name, "0") != "0" for name in _WARMING)
        if not warming and versions <= set(report.values()):
            return
    raise RejectedError(f"Envoy did not take the update within {TIMEOUT:.0f} s; see its log")


_WARMING = ("cluster_manager.warming_clusters", "listener_manager.total_listeners_warming")
_UPDATES = "|".join(("version_text$", "update_rejected$", *(f"^{name}$" for name in _WARMING)))
"""The versions of what a proxy has, how many it has refused, and how much it is warming."""


def _stats(admin: httpx.Client, pattern: str) -> dict[str, str]:
    lines = admin.get("/stats", params={"filter": pattern}).text.splitlines()
    return dict(line.split(": ", 1) for line in lines if ": " in line)


def _rejections(report: Mapping[str, str]) -> int:
    """Returns how many updates a proxy has refused since it started."""
    return sum(int(value) for name, value in report.items() if name.endswith("update_rejected"))


def validate(folder: Path) -> str | None:
    """Returns why `envoy --mode validate` refuses the files in a folder; None when it does not.

    The resources become static, because Envoy does not open discovery files while validating.
    """
    start = json.loads((folder / BOOTSTRAP_FILE).read_text())
    del start["dynamic_resources"]
    static = start["static_resources"]
    for path, key in ((CDS_FILE, "clusters"), (LDS_FILE, "listeners")):
        static[key] += resources(read(folder / path))
    route_configs = {
        item["name"]: item
        for path in (folder / "rds").glob("*.json")
        for item in resources(read(path))
    }
    static["listeners"] = [with_routes(item, route_configs) for item in static["listeners"]]
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
    output = outcome.stderr.strip()
    if (found := _REASON.search(output)) is not None:
        output = found[1]
    return " ".join(output.split()) or f"envoy --mode validate ended with {outcome.returncode}"
