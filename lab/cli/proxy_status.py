"""proxy-status: whether each Envoy has the configuration that it was given."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from lab.cli.client import FailureError
from lab.cli.context import Namespace, asked_namespace, client
from lab.cli.output import columns, duration, write

if TYPE_CHECKING:
    from lab.cli.proxies import Proxy

HEADER = ("NAME", "CLUSTER", "CDS", "LDS", "EDS", "RDS", "ISTIOD", "VERSION")

_VERSION = re.compile(r'\.version_text: "(.*)"$', re.MULTILINE)


def proxy_status(context: typer.Context, namespace_: Namespace = None) -> None:
    """Print for each proxy whether it has what istiod gave it, as istioctl does.

    SYNCED is what the Envoy itself reports as its version, with the time since
    it was given; STALE is newer than that, ERROR was refused by the Envoy (see
    `guestbook status`). The lab gives endpoints inside the clusters, so EDS is
    as CDS.

    Examples:
      guestbook proxy-status
      guestbook proxy-status -n istio-system
    """
    from lab import versions
    from lab.cli.proxies import everywhere

    lab = client(context)
    where = asked_namespace(context, namespace_)
    refused: dict[str, list[str]] = lab.call("refusals")
    rows = []
    for proxy in sorted(everywhere(lab), key=lambda one: (one.name, one.namespace)):
        if where in (None, proxy.namespace):
            name = f"{proxy.name}.{proxy.namespace}"
            states = _states(proxy, refused.get(name, ()))
            rows.append([name, "Kubernetes", *states, "istiod", versions.istio()])
    write("\n".join(columns(HEADER, rows)))


def _states(proxy: Proxy, refused: Sequence[str]) -> list[str]:
    """Returns the state of CDS, LDS, EDS and RDS."""
    from lab.envoy.bootstrap import CDS_FILE, LDS_FILE
    from lab.istiod.proxy_files import read

    try:
        page = proxy.page("/stats", filter="version_text", type="TextReadouts")
    except FailureError:
        return ["STALE"] * 4
    listeners = read(proxy.folder / LDS_FILE)
    has = set(_VERSION.findall(page))
    given: Mapping[str, list[Path]] = {
        "CDS": [proxy.folder / CDS_FILE],
        "LDS": [proxy.folder / LDS_FILE],
        "RDS": [path for path in (proxy.folder / "rds").glob("*.json") if path.name in listeners],
    }
    states = {
        kind: "ERROR" if kind in refused else _state(files, has) for kind, files in given.items()
    }
    return [states["CDS"], states["LDS"], states["CDS"], states["RDS"]]


def _state(files: list[Path], has: set[str]) -> str:
    """Returns the state of the files of one type of resources."""
    from lab.istiod.proxy_files import version

    if not files:
        return "NOT SENT"
    if not all(version(file) in has for file in files):
        return "STALE"
    newest = max(file.stat().st_mtime for file in files)
    return f"SYNCED ({duration(max(0, int(time.time() - newest)))})"
