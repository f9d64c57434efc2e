"""The bootstrap of a proxy: what its Envoy knows before any resource is translated."""

from __future__ import annotations

from lab import names, versions
from lab.model import Json, Pod
from lab.xds import ROUTER, extension, socket_address, typed

CDS_FILE = "cds.json"
LDS_FILE = "lds.json"


def bootstrap(pod: Pod) -> Json:
    """An Envoy that reads its listeners and clusters from files in the folder it runs in.

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
            "cds_config": _file(CDS_FILE),
            "lds_config": _file(LDS_FILE),
        },
        "static_resources": {
            "clusters": [
                _to_admin("prometheus_stats", pod),
                _to_admin("agent", pod),
            ],
            "listeners": [
                _listener(pod, names.METRICS_PORT, "/stats/prometheus", "prometheus_stats", None),
                _listener(pod, names.HEALTH_PORT, "/healthz/ready", "agent", "/ready"),
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
        "overload_manager": {
            "resource_monitors": [
                {
                    "name": "envoy.resource_monitors.global_downstream_max_connections",
                    "typed_config": typed(
                        "extensions.resource_monitors.downstream_connections.v3"
                        ".DownstreamConnectionsConfig",
                        max_active_downstream_connections=100000,
                    ),
                }
            ]
        },
    }


STATS_TAGS = (
    ("cluster_name", r"^cluster\.((.+?);\.)"),
    ("http_conn_manager_prefix", r"^http\.((.+?);\.)"),
    ("listener_address", r"^listener\.(((?:\d{1,3}\.){3}\d{1,3}_\d+)\.)"),
    ("response_code_class", r"_rq(_(\dxx))$"),
    ("response_code", r"_rq(_(\d{3}))$"),
)
"""How statistics become labels, with Istio's label names; a name in a statistic ends with `;`."""

RARE_WATCHDOG = {"miss_timeout": "3600s", "megamiss_timeout": "3600s"}
"""Envoy's watchdog would wake every thread five times a second, in every pod."""


def _file(path: str) -> Json:
    return {"path_config_source": {"path": f"./{path}"}, "resource_api_version": "V3"}


def _to_admin(name: str, pod: Pod) -> Json:
    return {
        "name": name,
        "alt_stat_name": f"{name};",
        "type": "STATIC",
        "connect_timeout": "1s",
        "load_assignment": {
            "cluster_name": name,
            "endpoints": [
                {
                    "lb_endpoints": [
                        {
                            "endpoint": {
                                "address": socket_address(pod.inside_address, names.ADMIN_PORT)
                            }
                        }
                    ]
                }
            ],
        },
    }


def _listener(pod: Pod, port: int, path: str, cluster: str, rewrite: str | None) -> Json:
    action: Json = {"cluster": cluster}
    if rewrite is not None:
        action["prefix_rewrite"] = rewrite
    manager = extension(
        "envoy.filters.network.http_connection_manager",
        "extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        stat_prefix=f"{cluster};",
        codec_type="AUTO",
        route_config={
            "virtual_hosts": [
                {
                    "name": "backend",
                    "domains": ["*"],
                    "routes": [{"match": {"prefix": path}, "route": action}],
                }
            ]
        },
        http_filters=[ROUTER],
    )
    return {
        "address": socket_address(pod.inside_address, port),
        "filter_chains": [{"filters": [manager]}],
    }
