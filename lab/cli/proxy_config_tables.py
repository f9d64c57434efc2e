"""The columns of `istioctl proxy-config`, from the config dump of a proxy."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from cryptography import x509

from lab.cli.client import FailureError
from lab.names import BLACK_HOLE
from lab.resources import protobuf
from lab.xds import filter_configs

Json = dict[str, Any]
Rows = list[list[str]]


@dataclass(frozen=True, slots=True)
class Filter:
    """The resources to show; an empty field is no restriction."""

    port: int = 0
    """Of a listener, a cluster's Service, or an endpoint itself."""
    fqdn: str = ""
    name: str = ""
    direction: str = ""
    subset: str = ""
    address: str = ""
    type: str = ""
    status: str = ""

    def has_name(self, item: Json) -> bool:
        return self.name in ("", item.get("name"))

    def has_cluster(self, item: Json) -> bool:
        direction, port, subset, host = _parts(item["name"])
        return (
            self.has_name(item)
            and self.fqdn in host
            and self.direction in ("", direction)
            and self.subset in subset
            and (not self.port or str(self.port) == port)
        )

    def has_listener(self, item: Json) -> bool:
        places = list(_addresses(item))
        return (
            self.has_name(item)
            and (not self.port or self.port in {port for _, port in places})
            and (not self.address or self.address in {address for address, _ in places})
            and self.type.upper() in ("", _listener_type(item))
        )

    def has_endpoint(self, item: Json) -> bool:
        socket = item.get("address", {}).get("socket_address", {})
        return (
            (not self.port or self.port == socket.get("port_value"))
            and (not self.address or self.address == socket.get("address"))
            and self.status.upper() in ("", _health(item))
        )


@dataclass(frozen=True, slots=True)
class Table:
    """One kind of resource: its admin page, its columns and the functions that fill them."""

    page: str
    header: tuple[str, ...]
    items: Callable[[Json, Filter], list[Json]]
    """The resources as Envoy has them."""
    rows: Callable[[list[Json]], Rows]
    in_json: Callable[[list[Json]], Any]
    """The items as istioctl prints them."""


def _configs(dump: Json, kind: str, *groups: str) -> Iterator[Json]:
    """Yields the items in some groups of one part of a config dump."""
    wanted = f"type.googleapis.com/envoy.admin.v3.{kind}"
    for part in dump.get("configs", []):
        if part.get("@type") == wanted:
            yield from (item for group in groups for item in part.get(group, []))


def as_sent(page: Json, sent: Json) -> Json:
    """Returns an admin page with what istiod sends in place of what the lab's network needs."""
    if not sent:
        return page
    statuses = page.get("cluster_statuses", [])
    own = {item["name"] for item in sent["clusters"]}
    parts = {
        "ListenersConfigDump": {
            "dynamic_listeners": [{"active_state": {"listener": one}} for one in sent["listeners"]]
        },
        "ClustersConfigDump": {
            "dynamic_active_clusters": [{"cluster": one} for one in sent["clusters"]]
        },
        "RoutesConfigDump": {
            "dynamic_route_configs": [{"route_config": one} for one in sent["routes"]],
            "static_route_configs": [
                {"route_config": config["route_config"]}
                for listener in sent["listeners"]
                for config in filter_configs(listener)
                if "route_config" in config
            ],
        },
    }
    return {
        **page,
        "configs": [
            part | parts.get(part.get("@type", "").rpartition(".")[2], {})
            for part in page.get("configs", [])
        ],
        "cluster_statuses": [
            one for one in statuses if one["name"] in own or "added_via_api" not in one
        ],
    }


# --- listeners ------------------------------------------------------------------------------------


def listeners(dump: Json, wanted: Filter) -> list[Json]:
    states = _configs(dump, "ListenersConfigDump", "dynamic_listeners")
    found = (item["active_state"]["listener"] for item in states if "active_state" in item)
    return list(filter(wanted.has_listener, found))


def _listener_type(listener: Json) -> str:
    """Returns istioctl's type of a listener, by the filters of its chains."""
    default = listener.get("default_filter_chain")
    chains = [*listener.get("filter_chains", []), *([default] if default else [])]
    filters = [one for chain in chains for one in chain.get("filters", [])]
    http = any(one["name"] == HTTP_FILTER for one in filters)
    tcp = any(
        one["name"] == TCP_FILTER and BLACK_HOLE not in json.dumps(one["typed_config"])
        for one in filters
    )
    return "+".join([*(["HTTP"] if http else []), *(["TCP"] if tcp else [])]) or "UNKNOWN"


HTTP_FILTER = "envoy.filters.network.http_connection_manager"
TCP_FILTER = "envoy.filters.network.tcp_proxy"


def _addresses(listener: Json) -> Iterator[tuple[str, int]]:
    for place in (listener, *listener.get("additional_addresses", [])):
        socket = place.get("address", {}).get("socket_address")
        if socket is not None:
            yield socket["address"], socket.get("port_value", 0)


def listener_rows(items: list[Json]) -> Rows:
    rows: Rows = []
    for listener in items:
        places = list(_addresses(listener))
        address = ",".join(dict.fromkeys(where for where, _ in places)) or listener["name"]
        ports = ",".join(str(port) for port in dict.fromkeys(port for _, port in places)) or "-"
        default = listener.get("default_filter_chain")
        chains = [*listener.get("filter_chains", []), *([default] if default else [])]
        lines = dict.fromkeys((_match(chain), _destination(chain)) for chain in chains)
        rows += [[address, ports, match, destination] for match, destination in lines]
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
            weighted = config["weighted_clusters"]["clusters"]
            parts = (f"{one['name']}={one.get('weight', 0)}" for one in weighted)
            return f"Cluster: {', '.join(parts)}"
    return "Non-HTTP/Non-TCP"


# --- clusters and endpoints -----------------------------------------------------------------------


def clusters(dump: Json, wanted: Filter) -> list[Json]:
    items = _configs(dump, "ClustersConfigDump", "static_clusters", "dynamic_active_clusters")
    found = (item["cluster"] for item in items)
    chosen = filter(wanted.has_cluster, found)
    return sorted(chosen, key=lambda cluster: _parts(cluster["name"])[::-1])


def _parts(name: str) -> tuple[str, str, str, str]:
    """Returns direction, port, subset and host of `outbound|80|v1|ui.default.svc.cluster.local`."""
    parts = name.split("|")
    if len(parts) == 4:
        return parts[0], parts[1], parts[2], parts[3]
    return "", "", "", name


def cluster_rows(items: list[Json]) -> Rows:
    rows = []
    for cluster in items:
        direction, port, subset, host = _parts(cluster["name"])
        rows.append(
            [
                host,
                port or "-",
                subset or "-",
                direction or "-",
                cluster.get("type") or cluster.get("cluster_type", {}).get("name", "STATIC"),
                _owner(cluster),
            ]
        )
    return rows


def _owner(item: Json) -> str:
    """Returns `ui.default` for `/apis/.../namespaces/default/virtual-service/ui`."""
    istio = item.get("metadata", {}).get("filter_metadata", {}).get("istio", {})
    parts = istio.get("config", "").strip("/").split("/")
    return f"{parts[-1]}.{parts[-3]}" if len(parts) >= 3 else ""


def endpoints(dump: Json, wanted: Filter) -> list[Json]:
    """Returns the clusters with those of their endpoints that are wanted."""
    restricted = wanted.port or wanted.address or wanted.status
    of_clusters = replace(wanted, port=0)
    found = []
    for cluster in filter(of_clusters.has_cluster, dump.get("cluster_statuses", [])):
        hosts = list(filter(wanted.has_endpoint, cluster.get("host_statuses", ())))
        if hosts or not restricted:
            found.append({**cluster, "host_statuses": hosts} if hosts else cluster)
    return found


def _health(host: Json) -> str:
    return str(host.get("health_status", {}).get("eds_health_status", "HEALTHY"))


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
            outlier = "FAILED" if health.get("failed_outlier_check") else "OK"
            rows.append([place, _health(host), outlier, status["name"]])
    return sorted(rows, key=lambda row: (row[3], row[0]))


# --- routes ---------------------------------------------------------------------------------------


def routes(dump: Json, wanted: Filter) -> list[Json]:
    items = _configs(dump, "RoutesConfigDump", "dynamic_route_configs", "static_route_configs")
    found = filter(wanted.has_name, (item["route_config"] for item in items))
    return sorted(found, key=lambda one: str(one.get("name", "")))


def route_rows(items: list[Json]) -> Rows:
    rows: dict[tuple[str, ...], None] = {}
    for configuration in items:
        for host in configuration.get("virtual_hosts", []):
            domains = host.get("domains", [])
            shown = ", ".join(domains[:2])
            if len(domains) > 2:
                shown += f" + {len(domains) - 2} more..."
            for route in host.get("routes") or [{}]:
                match = _route_match(route) if route else "404"
                name = configuration.get("name", "")
                rows[name, host["name"], shown, match, _owner(route)] = None
    return list(map(list, rows))


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
    found = [
        {**item, "state": state}
        for state, groups in (
            ("ACTIVE", ("dynamic_active_secrets", "static_secrets")),
            ("WARMING", ("dynamic_warming_secrets",)),
        )
        for item in _configs(dump, "SecretsConfigDump", *groups)
    ]
    return list(filter(wanted.has_name, found))


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


def _certificate(source: Json) -> list[str]:
    """Returns the cells of Envoy's DataSource, whose text a config dump has as base64."""
    text = source.get("inline_string", "").encode()
    if "inline_bytes" in source:
        text = base64.b64decode(source["inline_bytes"])
    try:
        found = x509.load_pem_x509_certificate(text)
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


def _secrets_dump(items: list[Json]) -> Json:
    """Returns secrets in Envoy's dump of them, with bytes, as an agent sends them."""
    groups: dict[str, list[Json]] = {}
    for item in items:
        group = f"dynamic_{item['state'].lower()}_secrets"
        bare = {key: _as_bytes(value) for key, value in item.items() if key != "state"}
        groups.setdefault(group, []).append(bare)
    return in_json("envoy.admin.v3.SecretsConfigDump", groups)


def _as_bytes(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    if "inline_string" in value:
        return {"inline_bytes": base64.b64encode(value["inline_string"].encode()).decode()}
    return {key: _as_bytes(item) for key, item in value.items()}


def in_json(message: str, value: Json) -> Json:
    """Returns a message of Envoy's as istioctl prints it. Raises FailureError."""
    try:
        return protobuf.to_camel_json(message, value)
    except (protobuf.UnknownTypeError, protobuf.InvalidError) as error:
        raise FailureError(
            f"istioctl's form of {value.get('name', message)} can't be had: {error}; "
            "proxy-config all -o json has Envoy's own"
        ) from error


def _each(message: str) -> Callable[[list[Json]], list[Json]]:
    return lambda items: [in_json(message, item) for item in items]


def bootstrap_rows(dump: Json) -> list[str]:
    """Returns the versions in a bootstrap, each with its title."""
    node = dump["bootstrap"]["node"]
    build = node.get("user_agent_build_version", {})
    number, about = build.get("version", {}), build.get("metadata", {})
    envoy = ".".join(str(number.get(part, 0)) for part in ("major_number", "minor_number", "patch"))
    told = [about[key] for key in ("revision.status", "build.type", "ssl.version") if key in about]
    pairs = {
        "Istio Version:": node.get("metadata", {}).get("ISTIO_VERSION", ""),
        "Envoy Version:": "/".join([envoy, *told]),
    }
    return [f"{title} {value}" for title, value in pairs.items() if value]


_DUMP = "/config_dump"
TABLES: dict[str, Table] = {
    "listeners": Table(
        _DUMP,
        ("ADDRESSES", "PORT", "MATCH", "DESTINATION"),
        listeners,
        listener_rows,
        _each("envoy.config.listener.v3.Listener"),
    ),
    "routes": Table(
        _DUMP,
        ("NAME", "VHOST NAME", "DOMAINS", "MATCH", "VIRTUAL SERVICE"),
        routes,
        route_rows,
        _each("envoy.config.route.v3.RouteConfiguration"),
    ),
    "clusters": Table(
        _DUMP,
        ("SERVICE FQDN", "PORT", "SUBSET", "DIRECTION", "TYPE", "DESTINATION RULE"),
        clusters,
        cluster_rows,
        _each("envoy.config.cluster.v3.Cluster"),
    ),
    "endpoints": Table(
        "/clusters",
        ("ENDPOINT", "STATUS", "OUTLIER CHECK", "CLUSTER"),
        endpoints,
        endpoint_rows,
        _each("envoy.admin.v3.ClusterStatus"),
    ),
    "secret": Table(
        _DUMP,
        (
            *("RESOURCE NAME", "TYPE", "STATUS", "VALID CERT"),
            *("SERIAL NUMBER", "NOT AFTER", "NOT BEFORE"),
        ),
        secrets,
        secret_rows,
        _secrets_dump,
    ),
}
OPTIONS: dict[str, tuple[str, ...]] = {
    "listeners": ("port", "address", "type", "name"),
    "routes": ("name",),
    "clusters": ("port", "fqdn", "direction", "subset", "name"),
    "endpoints": ("port", "fqdn", "address", "status", "name"),
    "secret": ("name",),
    "all": ("port", "fqdn", "direction", "subset", "address", "type", "name"),
}
"""The fields of Filter by which each kind is restricted: istioctl's, and some of the lab's own."""

_ALIASES = {
    "listeners": ("listener", "l"),
    "routes": ("route", "r"),
    "clusters": ("cluster", "c"),
    "endpoints": ("endpoint", "ep"),
    "secret": ("secrets", "s"),
    "all": ("a",),
    "bootstrap": ("b",),
    "log": ("o",),
}


def named(word: str) -> str:
    """Returns the name in TABLES of an alias; any other word stays."""
    return next((kind for kind, aliases in _ALIASES.items() if word in aliases), word)
