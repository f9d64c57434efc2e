"""Bootstrap of a proxy: its identity, admin interface, metrics and health."""

from __future__ import annotations

from lab import names, versions
from lab.model import Json, Pod
from lab.xds import ROUTER, extension, file_source, given, socket_address, static_assignment, typed

CDS_FILE = "cds.json"
LDS_FILE = "lds.json"

ADMIN_SOCKET = "admin.sock"
"""The admin interface as a socket in the proxy's folder, for the lab's own commands."""

STATS_TAGS = (
    ("cluster_name", r"^cluster\.((.+?);\.)"),
    ("http_conn_manager_prefix", r"^http\.((.+?);\.)"),
    ("listener_address", r"^listener\.(((?:\d{1,3}\.){3}\d{1,3}_\d+)\.)"),
    ("response_code_class", r"_rq(_(\dxx))$"),
    ("response_code", r"_rq(_(\d{3}))$"),
)
"""Istio's labels of statistics; a name within a statistic ends with `;`."""

RARE_WATCHDOG = {"miss_timeout": "3600s", "megamiss_timeout": "3600s"}
"""Envoy's watchdog would wake every thread five times a second, in every pod."""


def bootstrap(pod: Pod) -> Json:
    """Returns the bootstrap of an Envoy that reads listeners and clusters from files.

    The admin interface, health and metrics have the ports they have in Istio, at the pod's inside
    address.
    """
    kind = "router" if pod.proxy == "gateway" else "sidecar"
    app = pod.labels.get("app") or pod.name
    domain = f"{pod.namespace}.svc.cluster.local"
    return {
        "node": {
            "id": f"{kind}~{pod.address}~{pod.name}.{pod.namespace}~{domain}",
            "cluster": f"{app}.{pod.namespace}",
            "metadata": {
                "NAME": pod.name,
                "NAMESPACE": pod.namespace,
                "SERVICE_ACCOUNT": pod.service_account,
                "LABELS": dict(pod.labels),
                "ISTIO_VERSION": versions.istio(),
            },
        },
        "admin": {"address": socket_address(pod.inside_address, names.ADMIN_PORT)},
        "dynamic_resources": {
            "cds_config": file_source(f"./{CDS_FILE}"),
            "lds_config": file_source(f"./{LDS_FILE}"),
        },
        "static_resources": {
            "clusters": [_to_admin("prometheus_stats", pod), _to_admin("agent", pod)],
            "listeners": [
                _listener(
                    socket_address(pod.inside_address, names.METRICS_PORT),
                    "/stats/prometheus",
                    "prometheus_stats",
                ),
                _listener(
                    socket_address(pod.inside_address, names.HEALTH_PORT),
                    "/healthz/ready",
                    "agent",
                    "/ready",
                ),
                _listener({"pipe": {"path": ADMIN_SOCKET, "mode": 0o600}}, "/", "agent"),
            ],
        },
        "bootstrap_extensions": [
            extension(
                "envoy.bootstrap.internal_listener",
                "extensions.bootstrap.internal_listener.v3.InternalListener",
            )
        ],
        "stats_config": {
            "use_all_default_tags": False,
            "stats_tags": [{"tag_name": name, "regex": regex} for name, regex in STATS_TAGS],
        },
        "stats_flush_on_admin": True,
        "watchdogs": {
            "main_thread_watchdog": dict(RARE_WATCHDOG),
            "worker_watchdog": dict(RARE_WATCHDOG),
        },
        "overload_manager": {"resource_monitors": [_connection_limit()]},
    }


def _connection_limit() -> Json:
    kind = "extensions.resource_monitors.downstream_connections.v3.DownstreamConnectionsConfig"
    return {
        "name": "envoy.resource_monitors.global_downstream_max_connections",
        "typed_config": typed(kind, max_active_downstream_connections=100000),
    }


def _to_admin(name: str, pod: Pod) -> Json:
    address = socket_address(pod.inside_address, names.ADMIN_PORT)
    return {
        "name": name,
        "alt_stat_name": f"{name};",
        "type": "STATIC",
        "connect_timeout": "1s",
        "load_assignment": static_assignment(name, address),
    }


def _listener(address: Json, path: str, cluster: str, rewrite: str | None = None) -> Json:
    route = {"match": {"prefix": path}, "route": given(cluster=cluster, prefix_rewrite=rewrite)}
    manager = extension(
        "envoy.filters.network.http_connection_manager",
        "extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        stat_prefix=f"{cluster};",
        codec_type="AUTO",
        route_config={"virtual_hosts": [{"name": "backend", "domains": ["*"], "routes": [route]}]},
        http_filters=[ROUTER],
    )
    return {
        "address": address,
        "filter_chains": [{"filters": [manager]}],
    }
