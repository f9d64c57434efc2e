"""A real Envoy in front of processes, that learns its endpoints as it would from istiod."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from tests.support.envoy import LOG, envoy
from tests.support.wait import wait


def _socket(host: str, port: int) -> dict[str, Any]:
    return {"socket_address": {"address": host, "port_value": port}}


def _bootstrap(endpoints: Path) -> dict[str, Any]:
    """One listener, one route, one cluster; no retry that would hide a lost request."""
    manager = {
        "@type": "type.googleapis.com/envoy.extensions.filters.network."
        "http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "ingress",
        "http_filters": [
            {
                "name": "envoy.filters.http.router",
                "typed_config": {
                    "@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"
                },
            }
        ],
        "route_config": {
            "virtual_hosts": [
                {
                    "name": "ui",
                    "domains": ["*"],
                    "routes": [{"match": {"prefix": "/"}, "route": {"cluster": "ui"}}],
                }
            ]
        },
    }
    return {
        "node": {"id": "balancer", "cluster": "balancer"},
        "admin": {"address": _socket("127.0.0.1", 0)},
        "static_resources": {
            "listeners": [
                {
                    "name": "ingress",
                    "address": _socket("127.0.0.1", 0),
                    "filter_chains": [
                        {
                            "filters": [
                                {
                                    "name": "envoy.filters.network.http_connection_manager",
                                    "typed_config": manager,
                                }
                            ]
                        }
                    ],
                }
            ],
            "clusters": [
                {
                    "name": "ui",
                    "type": "EDS",
                    "connect_timeout": "1s",
                    "eds_cluster_config": {
                        "eds_config": {
                            "resource_api_version": "V3",
                            "path_config_source": {"path": str(endpoints)},
                        }
                    },
                }
            ],
        },
    }


@dataclass(frozen=True)
class Balancer:
    url: str
    _admin: str
    _endpoints: Path

    def route_to(self, urls: Iterable[str]) -> None:
        """Send requests to these processes alone, from the moment this returns."""
        wanted = {httpx.URL(url) for url in urls}
        _write(self._endpoints, wanted)
        wait(
            lambda: self._hosts() == {f"{url.host}:{url.port}" for url in wanted},
            "Envoy to take the endpoints",
        )

    def _hosts(self) -> set[str]:
        lines = httpx.get(f"{self._admin}/clusters").text.splitlines()
        return {line.split("::")[1] for line in lines if "::cx_active::" in line}


def _write(path: Path, urls: Iterable[httpx.URL]) -> None:
    assignment = {
        "@type": "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment",
        "cluster_name": "ui",
        "endpoints": [
            {
                "lb_endpoints": [
                    {"endpoint": {"address": _socket(url.host, url.port or 80)}} for url in urls
                ]
            }
        ],
    }
    new = path.with_suffix(".new")
    new.write_text(json.dumps({"resources": [assignment]}))
    new.rename(path)  # Envoy watches for a move.


@contextmanager
def balancer(folder: Path) -> Iterator[Balancer]:
    """Run Envoy on a free port until the block ends."""
    endpoints = folder / "endpoints.json"
    _write(endpoints, [])
    admin_file = folder / "admin"
    options = ("--admin-address-path", str(admin_file), "--use-dynamic-base-id")
    with envoy(folder, _bootstrap(endpoints), *options) as process:

        def address() -> str:
            assert process.poll() is None, (folder / LOG).read_text()
            if not admin_file.exists() or not (admin := admin_file.read_text()):
                return ""
            try:
                listeners = httpx.get(f"http://{admin}/listeners?format=json").json()
            except httpx.HTTPError:
                return ""
            found = listeners.get("listener_statuses", [])
            return str(found[0]["local_address"]["socket_address"]["port_value"]) if found else ""

        port = wait(address, "Envoy to listen")
        yield Balancer(f"http://127.0.0.1:{port}", f"http://{admin_file.read_text()}", endpoints)
