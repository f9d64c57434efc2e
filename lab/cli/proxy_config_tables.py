"""The columns of `istioctl proxy-config`, from the config dump of a proxy."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from cryptography import x509

Json = dict[str, Any]
Rows = list[list[str]]


@dataclass(frozen=True, slots=True)
class Filter:
    """The resources to show; an empty field is no restriction."""

    port: int = 0
    fqdn: str = ""
    name: str = ""


@dataclass(frozen=True, slots=True)
class Table:
    """One kind of resource: its admin page, its columns and the functions that fill them."""

    page: str
    header: tuple[str, ...]
    items: Callable[[Json, Filter], list[Json]]
    """The resources as Envoy has them."""
    rows: Callable[[list[Json]], Rows]


def _configs(dump: Json, kind: str) -> Json:
    wanted = f"type.googleapis.com/envoy.admin.v3.{kind}"
    return next((item for item in dump.get("configs", []) if item.get("@type") == wanted), {})


# --- listeners ------------------------------------------------------------------------------------


def listeners(dump: Json, wanted: Filter) -> list[Json]:
    found = [
        item["active_state"]["listener"]
        for item in _configs(dump, "ListenersConfigDump").get("dynamic_listeners", [])
        if "active_state" in item
    ]
    return [
        listener
        for listener in found
        if (not wanted.name or listener["name"] == wanted.name)
        and (not wanted.port or wanted.port in {port for _, port in _addresses(listener)})
    ]


def _addresses(listener: Json) -> Iterator[tuple[str, int]]:
    for place in (listener, *listener.get("additional_addresses", [])):
        socket = place.get("address", {}).get("socket_address")
        if socket is not None:
            yield socket["address"], socket.get("port_value", 0)


def listener_rows(items: list[Json]) -> Rows:
    rows = []
    for listener in items:
        places = list(_addresses(listener))
        address = ",".join(dict.fromkeys(where for where, _ in places)) or listener["name"]
        ports = ",".join(str(port) for port in dict.fromkeys(port for _, port in places)) or "-"
        default = listener.get("default_filter_chain")
        chains = [*listener.get("filter_chains", []), *([default] if default else [])]
        lines = [[_match(chain), _destination(chain)] for chain in chains]
        for match, destination in dict.fromkeys((one, other) for one, other in lines):
            rows.append([address, ports, match, destination])
    return rows


def _match(chain: Json) -> str:
    criteria = chain.get("filter_chain_match", {})
    parts = []
    if names := criteria.get("server_names"):
        parts.append(f"SNI: {','.join(names)}")
    if transport := criteria.get("transport_protocol"):
        parts.append(f"Trans: {transport}")
    if protocols := criteria.get("application_protocols"):
        parts.append(f"App: {','.join(protocols)}")
    if port := criteria.get("destination_port"):
        parts.append(f"Addr: *:{port}")
    return "; ".join(parts) or "ALL"


def _destination(chain: Json) -> str:
    for item in reversed(chain.get("filters", [])):
        config = item.get("typed_config", {})
        if "rds" in config:
            return f"Route: {config['rds']['route_config_name']}"
        if "route_config" in config:
            hosts = config["route_config"].get("virtual_hosts", [])
            paths = [_route_match(route) for host in hosts for route in host.get("routes", [])]
            return f"Inline Route: {', '.join(paths)}"
        if "cluster" in config:
            return f"Cluster: {config['cluster']}"
        if "weighted_clusters" in config:
            return f"Cluster: {_weighted(config['weighted_clusters'])}"
    return "Non-HTTP/Non-TCP"


def _weighted(weighted: Json) -> str:
    parts = (f"{one['name']}={one.get('weight', 0)}" for one in weighted["clusters"])
    return ", ".join(parts)


# --- clusters and endpoints -----------------------------------------------------------------------


def clusters(dump: Json, wanted: Filter) -> list[Json]:
    config = _configs(dump, "ClustersConfigDump")
    found = [
        item["cluster"]
        for group in ("static_clusters", "dynamic_active_clusters")
        for item in config.get(group, [])
    ]
    chosen = (cluster for cluster in found if _wanted_cluster(cluster["name"], wanted))
    return sorted(chosen, key=lambda cluster: _parts(cluster["name"])[::-1])


def _parts(name: str) -> tuple[str, str, str, str]:
    """Returns direction, port, subset and host of `outbound|80|v1|ui.default.svc.cluster.local`."""
    parts = name.split("|")
    if len(parts) == 4:
        return parts[0], parts[1], parts[2], parts[3]
    return "", "", "", name


def _wanted_cluster(name: str, wanted: Filter) -> bool:
    _, port, _, host = _parts(name)
    return (
        (not wanted.name or wanted.name == name)
        and (not wanted.fqdn or wanted.fqdn == host)
        and (not wanted.port or str(wanted.port) == port)
    )


def cluster_rows(items: list[Json]) -> Rows:
    rows = []
    for cluster in items:
        direction, port, subset, host = _parts(cluster["name"])
        istio = cluster.get("metadata", {}).get("filter_metadata", {}).get("istio", {})
        rows.append(
            [
                host,
                port or "-",
                subset or "-",
                direction or "-",
                cluster.get("type") or cluster.get("cluster_type", {}).get("name", "STATIC"),
                _owner(istio.get("config", "")),
            ]
        )
    return rows


def _owner(config: str) -> str:
    """Returns `ui.default` for `/apis/.../namespaces/default/virtual-service/ui`."""
    parts = config.strip("/").split("/")
    return f"{parts[-1]}.{parts[-3]}" if len(parts) >= 3 else ""


def endpoints(dump: Json, wanted: Filter) -> list[Json]:
    return [
        status
        for status in dump.get("cluster_statuses", [])
        if _wanted_cluster(status["name"], wanted)
    ]


def endpoint_rows(items: list[Json]) -> Rows:
    rows = []
    for status in items:
        for host in status.get("host_statuses", []):
            address = host.get("address", {})
            socket = address.get("socket_address", {})
            place = f"{socket.get('address', '')}:{socket.get('port_value', 0)}"
            if "envoy_internal_address" in address:
                place = f"envoy://{address['envoy_internal_address']['server_listener_name']}"
            health = host.get("health_status", {})
            failed = bool(health.get("failed_outlier_check"))
            rows.append(
                [
                    place,
                    health.get("eds_health_status", "HEALTHY"),
                    "FAILED" if failed else "OK",
                    status["name"],
                ]
            )
    return sorted(rows, key=lambda row: (row[3], row[0]))


# --- routes ---------------------------------------------------------------------------------------


def routes(dump: Json, wanted: Filter) -> list[Json]:
    config = _configs(dump, "RoutesConfigDump")
    found = [
        item["route_config"]
        for group in ("dynamic_route_configs", "static_route_configs")
        for item in config.get(group, [])
    ]
    named = (one for one in found if not wanted.name or one.get("name") == wanted.name)
    return sorted(named, key=lambda one: str(one.get("name", "")))


def route_rows(items: list[Json]) -> Rows:
    rows: Rows = []
    for configuration in items:
        for host in configuration.get("virtual_hosts", []):
            domains = host.get("domains", [])
            shown = ", ".join(domains[:2])
            if len(domains) > 2:
                shown += f" + {len(domains) - 2} more..."
            lines = host.get("routes") or [{}]
            for route in lines:
                istio = route.get("metadata", {}).get("filter_metadata", {}).get("istio", {})
                match = _route_match(route) if route else "404"
                name, owner = configuration.get("name", ""), _owner(istio.get("config", ""))
                rows.append([name, host["name"], shown, match, owner])
    return [list(row) for row in dict.fromkeys(tuple(row) for row in rows)]


def _route_match(route: Json) -> str:
    match = route.get("match", {})
    conditions = " headers" if match.get("headers") else ""
    if "path" in match:
        return str(match["path"]) + conditions
    if "prefix" in match:
        return f"{match['prefix']}*{conditions}"
    if "path_separated_prefix" in match:
        return f"{match['path_separated_prefix']}/*{conditions}"
    if "safe_regex" in match:
        return f"regex {match['safe_regex']['regex']}{conditions}"
    return "CONNECT" if "connect_matcher" in match else "-"


# --- secrets --------------------------------------------------------------------------------------


def secrets(dump: Json, wanted: Filter) -> list[Json]:
    config = _configs(dump, "SecretsConfigDump")
    found = [
        {**item, "state": state}
        for group, state in (
            ("dynamic_active_secrets", "ACTIVE"),
            ("static_secrets", "ACTIVE"),
            ("dynamic_warming_secrets", "WARMING"),
        )
        for item in config.get(group, [])
    ]
    return [item for item in found if not wanted.name or item.get("name") == wanted.name]


def secret_rows(items: list[Json]) -> Rows:
    rows = []
    for item in items:
        secret = item.get("secret", {})
        kind, source = "-", {}
        if "tls_certificate" in secret:
            kind, source = "Cert Chain", secret["tls_certificate"].get("certificate_chain", {})
        elif "validation_context" in secret:
            kind, source = "CA", secret["validation_context"].get("trusted_ca", {})
        rows.append([item.get("name", ""), kind, item["state"], *_certificate(source)])
    return rows


def certificate_pem(source: Json) -> bytes:
    """Returns the text of Envoy's DataSource, which a config dump has as base64."""
    if "inline_bytes" in source:
        return base64.b64decode(source["inline_bytes"])
    return str(source.get("inline_string", "")).encode()


def _certificate(source: Json) -> list[str]:
    try:
        found = x509.load_pem_x509_certificate(certificate_pem(source))
    except ValueError:
        return ["false", "-", "-", "-"]
    now = datetime.now(UTC)
    valid = found.not_valid_before_utc <= now <= found.not_valid_after_utc
    return [
        str(valid).lower(),
        f"{found.serial_number:x}",
        f"{found.not_valid_after_utc:%Y-%m-%dT%H:%M:%SZ}",
        f"{found.not_valid_before_utc:%Y-%m-%dT%H:%M:%SZ}",
    ]


_DUMP = "/config_dump"
TABLES: dict[str, Table] = {
    "listeners": Table(
        _DUMP, ("ADDRESSES", "PORT", "MATCH", "DESTINATION"), listeners, listener_rows
    ),
    "routes": Table(
        _DUMP, ("NAME", "VHOST NAME", "DOMAINS", "MATCH", "VIRTUAL SERVICE"), routes, route_rows
    ),
    "clusters": Table(
        _DUMP,
        ("SERVICE FQDN", "PORT", "SUBSET", "DIRECTION", "TYPE", "DESTINATION RULE"),
        clusters,
        cluster_rows,
    ),
    "endpoints": Table(
        "/clusters", ("ENDPOINT", "STATUS", "OUTLIER CHECK", "CLUSTER"), endpoints, endpoint_rows
    ),
    "secret": Table(
        _DUMP,
        (
            "RESOURCE NAME",
            "TYPE",
            "STATUS",
            "VALID CERT",
            "SERIAL NUMBER",
            "NOT AFTER",
            "NOT BEFORE",
        ),
        secrets,
        secret_rows,
    ),
}
_ALIASES = {
    "listeners": ("listener", "l"),
    "routes": ("route", "r"),
    "clusters": ("cluster", "c"),
    "endpoints": ("endpoint", "ep"),
    "secret": ("secrets", "s"),
}


def named(word: str) -> str:
    """Returns the name in TABLES of an alias; any other word stays."""
    return next((kind for kind, aliases in _ALIASES.items() if word in aliases), word)
