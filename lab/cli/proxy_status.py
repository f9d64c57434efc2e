"""proxy-status: whether each Envoy has the configuration that it was given."""

from __future__ import annotations

import difflib
import json
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lab.cli.client import FailureError
from lab.cli.context import Namespace, asked_namespace, client, namespace, program
from lab.cli.output import Json, columns, duration, write
from lab.xds import TYPE_PREFIX

if TYPE_CHECKING:
    from lab.cli.proxies import Proxy

HEADER = ("NAME", "CLUSTER", "ISTIOD", "VERSION", "SUBSCRIBED TYPES")
NO_MATCH = "Don't Match"
WITH_STATES = ("NAME", "CLUSTER", "CDS", "ECDS", "EDS", "LDS", "RDS", "ISTIOD", "VERSION")

_VERSION = re.compile(r'\.version_text: "(.*)"$', re.MULTILINE)


def proxy_status(
    context: typer.Context,
    target: Annotated[
        str,
        typer.Argument(metavar="[POD | KIND/NAME]", help="Print the difference of this proxy."),
    ] = "",
    verbosity: Annotated[
        int | None,
        typer.Option(
            "--verbosity", "-v", help="1 for states, 0 for types; as istioctl 0 is the default."
        ),
    ] = None,
    namespace_: Namespace = None,
) -> None:
    """Print for each proxy whether it has what istiod gave it, as istioctl does.

    SYNCED is what the Envoy itself reports as its version, with the time since
    it was given; STALE is newer than that, ERROR was refused by the Envoy (see
    `guestbook status`). The lab gives endpoints inside the clusters, so EDS is
    as CDS. Of one proxy it prints how what Envoy has differs from what it was
    given.

    Examples:
      guestbook proxy-status
      guestbook proxy-status -n istio-system
      guestbook proxy-status deploy/ui
    """
    from lab import versions
    from lab.cli.proxies import chosen, everywhere

    lab = client(context)
    if target:
        proxy = chosen(lab, namespace(context, namespace_), target)[0]
        files = lab.call("refusals").get(f"{proxy.name}.{proxy.namespace}", {})
        write("\n".join(_differences(proxy, files)))
        return
    where = asked_namespace(context, namespace_)
    if verbosity is None:
        verbosity = 0 if program() == "istioctl" else 1
    refused: dict[str, dict[str, list[str]]] = lab.call("refusals")
    rows = []
    for proxy in sorted(everywhere(lab), key=lambda one: (one.name, one.namespace)):
        if where not in (None, proxy.namespace):
            continue
        name = f"{proxy.name}.{proxy.namespace}"
        if verbosity:
            cds, lds, rds = _states(proxy, refused.get(name, {}))
            states = [cds, "IGNORED", cds, lds, rds]
            rows.append([name, "Kubernetes", *states, "istiod", versions.istio()])
        else:
            rows.append([name, "Kubernetes", "istiod", versions.istio(), "4 (CDS,LDS,EDS,RDS)"])
    write("\n".join(columns(WITH_STATES if verbosity else HEADER, rows)))


def _states(proxy: Proxy, refused: Mapping[str, Sequence[str]]) -> list[str]:
    """Returns the state of CDS, LDS and RDS."""

    try:
        page = proxy.page("/stats", filter="version_text", type="TextReadouts")
    except FailureError:
        return ["STALE"] * 3
    has = set(_VERSION.findall(page))
    return [
        "ERROR" if kind in refused else _state(files, has) for kind, files in _given(proxy).items()
    ]


def _given(proxy: Proxy) -> dict[str, list[Path]]:
    """Returns the files of each type of resources."""
    from lab.envoy.bootstrap import CDS_FILE, LDS_FILE
    from lab.istiod.proxy_files import read

    listeners = read(proxy.folder / LDS_FILE)
    routes = (proxy.folder / "rds").glob("*.json")
    return {
        "CDS": [proxy.folder / CDS_FILE],
        "LDS": [proxy.folder / LDS_FILE],
        "RDS": [path for path in routes if path.name in listeners],
    }


def _state(files: list[Path], has: set[str]) -> str:
    """Returns the state of the files of one type of resources."""
    from lab.istiod.proxy_files import version

    if not files:
        return "NOT SENT"
    if not all(version(file) in has for file in files):
        return "STALE"
    newest = max(file.stat().st_mtime for file in files)
    return f"SYNCED ({duration(max(0, int(time.time() - newest)))})"


@dataclass(frozen=True, slots=True)
class _Dump:
    """A part of Envoy's dump: its message, the field of its resources and the place of each."""

    kind: str
    title: str
    message: str
    field: str
    place: tuple[str, ...]


_DUMPS = (
    _Dump("CDS", "Clusters", "ClustersConfigDump", "dynamic_active_clusters", ("cluster",)),
    _Dump(
        "LDS",
        "Listeners",
        "ListenersConfigDump",
        "dynamic_listeners",
        ("active_state", "listener"),
    ),
    _Dump("RDS", "Routes", "RoutesConfigDump", "dynamic_route_configs", ("route_config",)),
)


def _differences(proxy: Proxy, refused: Mapping[str, Sequence[str]]) -> Iterator[str]:
    """Yields for each type whether Envoy has what it was given, and the difference."""
    from lab.istiod.proxy_files import read, resources

    dump = json.loads(proxy.page("/config_dump"))
    parts = {part["@type"].rpartition(".")[2]: part for part in dump["configs"]}
    for one in _DUMPS:
        items = parts.get(one.message, {}).get(one.field, [])
        has = [found for item in items if (found := _at(item, one.place)) is not None]
        # A refused configuration is no longer in the proxy's folder.
        texts = refused.get(one.kind) or [read(file) for file in _given(proxy)[one.kind]]
        given = [item for text in texts for item in resources(text)]
        ours, theirs = (
            json.dumps(_dumped(one, found), indent=4, ensure_ascii=False).splitlines()
            for found in (given, has)
        )
        names = (f"Istiod {one.title}", f"Envoy {one.title}")
        difference = [*difflib.unified_diff(ours, theirs, *names, n=7, lineterm="")]
        loaded = _loaded(items) if one.kind == "RDS" else ""
        yield f"{one.title} {'Match' if not difference else NO_MATCH}{loaded}"
        if difference:
            yield from (*difference, "")


def _at(item: Json, place: Sequence[str]) -> Json | None:
    for name in place:
        item = item.get(name, {})
    return item or None


def _dumped(one: _Dump, found: Sequence[Json]) -> Json:
    """Returns resources as they stand in a dump, in a settled order and without private keys."""
    from lab.cli.proxy_config_tables import in_json

    items = []
    for resource in sorted(found, key=lambda item: str(item.get("name", ""))):
        item = {key: value for key, value in resource.items() if key != "@type"}
        if "virtual_hosts" in item:
            item["virtual_hosts"] = sorted(item["virtual_hosts"], key=lambda host: host["name"])
        item = {"@type": f"{TYPE_PREFIX}{_TYPES[one.kind]}", **_without_keys(item)}
        for name in reversed(one.place):
            item = {name: item}
        items.append(item)
    return in_json(f"envoy.admin.v3.{one.message}", {one.field: items})


_TYPES = {
    "CDS": "config.cluster.v3.Cluster",
    "LDS": "config.listener.v3.Listener",
    "RDS": "config.route.v3.RouteConfiguration",
}


def _without_keys(value: Any) -> Any:
    """Returns a value with private keys as Envoy dumps them."""
    if isinstance(value, dict):
        return {
            key: {"inline_string": "[redacted]"} if key == "private_key" else _without_keys(item)
            for key, item in value.items()
        }
    return [_without_keys(item) for item in value] if isinstance(value, list) else value


def _loaded(items: Sequence[Json]) -> str:
    """Returns when the newest routes were loaded, in the zone of this machine."""
    times = [item["last_updated"] for item in items if "last_updated" in item]
    if not times:
        return ""
    newest = datetime.fromisoformat(max(times)).astimezone()
    return f" (RDS last loaded at {newest:%a, %d %b %Y %H:%M:%S %Z})"
