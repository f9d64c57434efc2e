"""EnvoyFilter on real Envoys, and on the configuration: each applyTo with what it is used for."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import httpx
import pytest

from lab.envoy import translate
from lab.kinds.envoy_filter import becomes as envoy_filter
from lab.kinds.visible import view
from lab.manifests.load import parse
from lab.manifests.read import ManifestError
from lab.model import Json, Pod, ProxyConfig
from lab.resources import protobuf
from lab.resources.resource import Problem
from tests.support import harness, sample
from tests.support.secured import apply, direct, get

ROUTES = """
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: guestbook, namespace: default}
spec:
  selector: {istio: ingressgateway}
  servers:
  - {port: {number: 80, name: http, protocol: HTTP}, hosts: ["*"]}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: all, namespace: default}
spec:
  hosts: ["*"]
  gateways: [guestbook]
  http:
  - {name: everything, route: [{destination: {host: message}}]}
"""


@pytest.fixture(scope="module")
def filtered(tmp_path_factory: pytest.TempPathFactory) -> Iterator[harness.Mesh]:
    with harness.mesh(tmp_path_factory.mktemp("mesh")) as made:
        for name in ("ui", "message"):
            made.add(name, proxy="sidecar")
            made.service(name)
        made.gateway()
        made.start()
        yield made


def patch(
    apply_to: str,
    operation: str,
    value: str = "",
    match: str = "",
    *,
    namespace: str = "default",
    labels: str = "{app: message}",
    name: str = "tested",
    priority: int = 0,
) -> str:
    written = f"\n      value: {value}" if value else ""
    matched = f"\n    match: {match}" if match else ""
    return f"""
apiVersion: networking.istio.io/v1alpha3
kind: EnvoyFilter
metadata: {{name: {name}, namespace: {namespace}}}
spec:
  priority: {priority}
  workloadSelector: {{labels: {labels}}}
  configPatches:
  - applyTo: {apply_to}{matched}
    patch:
      operation: {operation}{written}
"""


def gateway_patch(apply_to: str, operation: str, value: str = "", match: str = "") -> str:
    labels = "{istio: ingressgateway}"
    return patch(apply_to, operation, value, match, namespace="istio-system", labels=labels)


def ingress(mesh: harness.Mesh, path: str = "/") -> httpx.Response:
    address = mesh.pods["gateway"].pod.address
    return httpx.get(f"http://{address}:8080{path}", timeout=10)


def config(mesh: harness.Mesh, text: str, pod: str = "message") -> ProxyConfig:
    """The configuration of a pod with these manifests, without pushing it."""
    mesh.config = harness.resources(text)
    return translate.proxy_config(mesh.snapshot(), mesh.pods[pod].pod)


def named(items: list[Json], name: str) -> Json:
    return next(item for item in items if item["name"] == name)


def manager(listener: Json, chain: str = "0.0.0.0_8080") -> Json:
    found: Json = named(listener["filter_chains"], chain)["filters"][-1]["typed_config"]
    return found


HCM = "filterChain: {filter: {name: envoy.filters.network.http_connection_manager"
ROUTER = f"{HCM}, subFilter: {{name: envoy.filters.http.router}}}}}}"
INBOUND_ROUTER = f"{{context: SIDECAR_INBOUND, listener: {{{ROUTER}}}}}"
LUA = (
    '{name: envoy.filters.http.lua, typed_config: {"@type": type.googleapis.com/envoy.extensions.'
    "filters.http.lua.v3.Lua, defaultSourceCode: {inlineString: "
    "\"function envoy_on_response(h) h:headers():add('x-lua', '%s') end\"}}}"
)


def test_an_http_filter_before_the_router(filtered: harness.Mesh) -> None:
    apply(filtered, patch("HTTP_FILTER", "INSERT_BEFORE", LUA % "in", INBOUND_ROUTER))
    assert get(filtered).headers["x-lua"] == "in"
    assert "x-lua" not in get(filtered, host="ui").headers, "another workload"


def test_the_order_is_by_priority_then_by_age(filtered: harness.Mesh) -> None:
    apply(
        filtered,
        patch("HTTP_FILTER", "INSERT_BEFORE", LUA % "late", INBOUND_ROUTER, priority=1),
        patch("HTTP_FILTER", "INSERT_BEFORE", LUA % "early", INBOUND_ROUTER, name="first"),
        patch("HTTP_FILTER", "INSERT_BEFORE", LUA % "next", INBOUND_ROUTER, name="second"),
    )
    # Responses pass the filters backwards.
    assert get(filtered).headers["x-lua"] == "late, next, early"


def test_an_http_filter_for_one_port_only(filtered: harness.Mesh) -> None:
    for port, there in ((8080, True), (9000, False)):
        match = f"{{context: SIDECAR_INBOUND, listener: {{portNumber: {port}, {ROUTER}}}}}"
        text = patch("HTTP_FILTER", "INSERT_BEFORE", LUA % "x", match)
        filters = manager(named(config(filtered, text).listeners, "virtualInbound"))
        assert ("envoy.filters.http.lua" in str(filters)) is there


def test_network_filter_merge_changes_the_connection_manager(filtered: harness.Mesh) -> None:
    value = (
        '{name: envoy.filters.network.http_connection_manager, typed_config: {"@type": type.google'
        "apis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"
        ", serverHeaderTransformation: PASS_THROUGH, upgrade_configs: [{upgrade_type: foo}]}}"
    )
    match = f"{{context: SIDECAR_INBOUND, listener: {{{HCM}}}}}}}}}"
    text = patch("NETWORK_FILTER", "MERGE", value, match)
    apply(filtered, text)
    assert direct(filtered.pods["message"].pod).headers["server"].startswith("BaseHTTP")
    merged = manager(named(config(filtered, text).listeners, "virtualInbound"))
    kinds = [item["upgrade_type"] for item in merged["upgrade_configs"]]
    assert kinds == ["websocket", "foo"], "a list grows"


def test_a_virtual_host_of_the_gateway(filtered: harness.Mesh) -> None:
    value = "{response_headers_to_add: [{header: {key: x-patched, value: yes}}]}".replace(
        "yes", "'yes'"
    )
    match = '{context: GATEWAY, routeConfiguration: {%svhost: {name: "*:80"}}}'
    for port, there in (("", True), ("portNumber: 80, ", True), ("portNumber: 81, ", False)):
        apply(filtered, ROUTES, gateway_patch("VIRTUAL_HOST", "MERGE", value, match % port))
        assert ("x-patched" in ingress(filtered).headers) is there, port


def test_a_merge_may_replace_lists(filtered: harness.Mesh) -> None:
    match = '{context: GATEWAY, routeConfiguration: {vhost: {name: "*:80"}}}'
    value = "{domains: [only.example]}"
    for operation, found in (("MERGE", 200), ("MERGE_AND_REPLACE_LIST", 404)):
        apply(filtered, ROUTES, gateway_patch("VIRTUAL_HOST", operation, value, match))
        assert ingress(filtered).status_code == found, operation
    removed = patch("HTTP_FILTER", "MERGE_AND_REPLACE_LIST", LUA % "x", INBOUND_ROUTER)
    assert len(unmatched(filtered, removed)) == 1, "a filter of a list knows MERGE alone"


def test_routes_are_merged_inserted_and_removed(filtered: harness.Mesh) -> None:
    everything = "{context: GATEWAY, routeConfiguration: {vhost: {route: {name: everything}}}}"
    direct = "{name: mine, match: {prefix: /mine}, direct_response: {status: 201}}"
    apply(filtered, ROUTES, gateway_patch("HTTP_ROUTE", "INSERT_BEFORE", direct, everything))
    assert ingress(filtered, "/mine").status_code == 201
    assert ingress(filtered).status_code == 200
    merged = "{route: {prefix_rewrite: /rewritten}}"
    apply(filtered, ROUTES, gateway_patch("HTTP_ROUTE", "MERGE", merged, everything))
    assert ingress(filtered).json()["path"] == "/rewritten"
    apply(filtered, ROUTES, gateway_patch("HTTP_ROUTE", "REMOVE", "", everything))
    assert ingress(filtered).status_code == 404


def test_outbound_virtual_hosts_go_by_istios_names(filtered: harness.Mesh) -> None:
    value = "{response_headers_to_add: [{header: {key: x-patched, value: '1'}}]}"
    vhost = "vhost: {name: 'message.default.svc.cluster.local:80'}"
    for where, there in (
        (vhost, True),
        (f"portNumber: 80, {vhost}", True),
        ("name: '80'", True),
        ("portNumber: 81", False),
        ("vhost: {name: message}", False),
    ):
        match = f"{{context: SIDECAR_OUTBOUND, routeConfiguration: {{{where}}}}}"
        apply(filtered, patch("VIRTUAL_HOST", "MERGE", value, match, labels="{app: ui}"))
        assert ("x-patched" in get(filtered).headers) is there, where


def test_inbound_routes(filtered: harness.Mesh) -> None:
    value = "{request_headers_to_add: [{header: {key: x-patched, value: '1'}}]}"
    match = "{context: SIDECAR_INBOUND, routeConfiguration: {portNumber: 8080}}"
    apply(filtered, patch("ROUTE_CONFIGURATION", "MERGE", value, match))
    assert get(filtered).json()["headers"]["x-patched"] == "1"


def test_clusters_are_merged_added_and_removed(filtered: harness.Mesh) -> None:
    name = "outbound|80||message.default.svc.cluster.local"
    service = "{context: SIDECAR_OUTBOUND, cluster: {service: message.default.svc.cluster.local}}"
    text = patch("CLUSTER", "MERGE", "{connect_timeout: 3.5s}", service, labels="{app: ui}")
    assert named(config(filtered, text, "ui").clusters, name)["connect_timeout"] == "3.500s"
    added = "{name: mine, type: STATIC, connect_timeout: 1s}"
    text = patch("CLUSTER", "ADD", added, labels="{app: ui}")
    found = [item["name"] for item in config(filtered, text, "ui").clusters]
    assert found.count("mine") == 1
    exact = f"{{cluster: {{name: '{name}'}}}}"
    apply(filtered, patch("CLUSTER", "REMOVE", "", exact, labels="{app: ui}"))
    assert get(filtered).status_code == 503


def test_listeners_are_merged_and_removed(filtered: harness.Mesh) -> None:
    match = "{context: SIDECAR_INBOUND, listener: {name: virtualInbound}}"
    value = "{per_connection_buffer_limit_bytes: 4096, listener_filters_timeout: 3s}"
    merged = named(
        config(filtered, patch("LISTENER", "MERGE", value, match)).listeners, "virtualInbound"
    )
    assert merged["per_connection_buffer_limit_bytes"] == 4096
    assert merged["listener_filters_timeout"] == "3s"
    names = [
        item["name"] for item in config(filtered, patch("LISTENER", "REMOVE", "", match)).listeners
    ]
    assert "virtualInbound" not in names


def test_a_configuration_survives_the_way_through_protobuf(filtered: harness.Mesh) -> None:
    """An empty merge changes nothing but spelling, so nothing the lab writes gets lost."""
    filtered.config = harness.resources(ROUTES)
    for pod in ("message", "ui", "gateway"):
        made = translate.proxy_config(filtered.snapshot(), filtered.pods[pod].pod)
        for kind, items in (
            ("envoy.config.listener.v3.Listener", made.listeners),
            ("envoy.config.cluster.v3.Cluster", made.clusters),
            ("envoy.config.route.v3.RouteConfiguration", made.routes),
        ):
            for item in items:
                once = protobuf.merge(kind, item, {})
                assert protobuf.merge(kind, once, {}) == once


@pytest.mark.parametrize(
    ("target", "patched", "merged"),
    [
        ({"connect_timeout": "1.5s"}, {"connect_timeout": "2s"}, {"connect_timeout": "2s"}),
        ({"lb_policy": "RANDOM"}, {"lb_policy": "ROUND_ROBIN"}, {"lb_policy": "RANDOM"}),
        (
            {"circuit_breakers": {"thresholds": [{"max_requests": 1}]}},
            {"circuit_breakers": {"thresholds": [{"max_requests": 2}]}},
            {"circuit_breakers": {"thresholds": [{"max_requests": 1}, {"max_requests": 2}]}},
        ),
        (
            {"metadata": {"filter_metadata": {"a": {"x": 1}, "b": {"y": 1}}}},
            {"metadata": {"filter_metadata": {"a": {"z": 2}}}},
            {"metadata": {"filter_metadata": {"a": {"z": 2}, "b": {"y": 1}}}},
        ),
        ({"type": "EDS"}, {"cluster_type": {"name": "x"}}, {"cluster_type": {"name": "x"}}),
    ],
    ids=["duration", "zero value", "list", "map", "oneof"],
)
def test_merge_is_protobufs(target: Json, patched: Json, merged: Json) -> None:
    assert protobuf.merge("envoy.config.cluster.v3.Cluster", target, patched) == merged


def test_a_merge_stays_with_the_filter_that_matches() -> None:
    value = (
        '{name: envoy.filters.http.router, typed_config: {"@type": type.googleapis.com/envoy.'
        "extensions.filters.http.router.v3.Router, strictCheckHeaders: [x-envoy-max-retries]}}"
    )
    text = patch("HTTP_FILTER", "MERGE", value, INBOUND_ROUTER, labels="{app: server}")
    made = translate.proxy_config(sample.with_manifests(text), sample.PODS[1])
    found = [
        (listener["name"], tuple(strict) if strict is not None else None)
        for listener in made.listeners
        for chain in listener.get("filter_chains", ())
        for network in chain["filters"]
        for http in network["typed_config"].get("http_filters", ())
        if http["name"] == "envoy.filters.http.router"
        for strict in [http["typed_config"].get("strict_check_headers")]
    ]
    inbound = {("virtualInbound", ("x-envoy-max-retries",))}
    assert {item for item in found if item[0] == "virtualInbound"} == inbound
    outbound = {strict for listener, strict in found if listener != "virtualInbound"}
    assert outbound == {None}


def unmatched(mesh: harness.Mesh, text: str) -> list[Problem]:
    mesh.config = harness.resources(text)
    snapshot = mesh.snapshot()
    resource = snapshot.of("EnvoyFilter")[0]

    def generated(pod: Pod) -> ProxyConfig:
        return translate.generated(view(snapshot, pod))

    return list(envoy_filter.without_effect(resource, snapshot, generated))


def test_a_patch_that_matches_nothing_is_told(filtered: harness.Mesh) -> None:
    assert (
        unmatched(filtered, patch("HTTP_FILTER", "INSERT_BEFORE", LUA % "x", INBOUND_ROUTER)) == []
    )
    old = INBOUND_ROUTER.replace("envoy.filters.http.router", "envoy.router")
    (problem,) = unmatched(filtered, patch("HTTP_FILTER", "INSERT_BEFORE", LUA % "x", old))
    assert problem.path == ("spec", "configPatches", 0)
    assert problem.severity == "warning"
    assert "matches nothing in any proxy" in problem.reason


V2 = (
    '{name: x, typed_config: {"@type": '
    "type.googleapis.com/envoy.config.filter.http.rate_limit.v2.RateLimit}}"
)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (patch("HTTP_FILTER", "INSERT_BEFORE", V2, INBOUND_ROUTER), "try using the v3 XDS API"),
        (patch("HTTP_FILTER", "ADD"), "missing patch value for non-remove operation"),
        (patch("INVALID", "ADD", "{}"), "missing applyTo"),
        (patch("CLUSTER", "INVALID", "{}"), "missing patch operation"),
        (patch("CLUSTER", "ADD", "{name: [1]}"), "name"),
        (patch("CLUSTER", "MERGE", "{}", "{listener: {name: a}}"), "non cluster match"),
        (patch("VIRTUAL_HOST", "MERGE", "{}", "{cluster: {}}"), "non route configuration match"),
        (patch("HTTP_FILTER", "MERGE", "{}", "{cluster: {}}"), "non listener match"),
        (
            patch(
                "NETWORK_FILTER",
                "MERGE",
                "{}",
                "{listener: {filterChain: {filter: {name: a, subFilter: {name: b}}}}}",
            ),
            "subfilter match can be used with applyTo HTTP_FILTER only",
        ),
        (patch("BOOTSTRAP", "MERGE", "{}"), "not supported by the lab: BOOTSTRAP"),
    ],
)
def test_what_istio_rejects_is_rejected(text: str, problem: str) -> None:
    with pytest.raises(ManifestError) as raised:
        parse([("test.yaml", text)])
    assert problem in str(raised.value)


@pytest.mark.parametrize(
    ("text", "warning"),
    [
        (
            patch(
                "HTTP_FILTER",
                "INSERT_BEFORE",
                LUA % "x",
                INBOUND_ROUTER.replace("envoy.filters.http.router", "envoy.router"),
            ),
            'using deprecated filter name "envoy.router"; use "envoy.filters.http.router"',
        ),
        (patch("CLUSTER", "MERGE", "{connectTimeout: 1s, nonsense: 1}"), "nonsense"),
    ],
)
def test_what_istio_warns_of_is_a_warning(text: str, warning: str) -> None:
    warnings = parse([("test.yaml", text)]).warnings
    assert any(warning in line for line in warnings), warnings
    assert any("exposes internal implementation details" in line for line in warnings)


def test_envoys_messages_are_not_loaded_without_an_envoy_filter() -> None:
    code = (
        "import sys; import lab.envoy.translate; import lab.manifests.registry; "
        "sys.exit('google.protobuf' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0
