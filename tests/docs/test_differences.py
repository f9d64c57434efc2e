"""Each row of docs/differences.md is held by a test that fails when the row stops being true."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from lab.cli import main
from lab.cli.app import MISSING
from lab.cluster import probes, snapshots
from lab.envoy import secrets, translate
from lab.envoy.adapt import adapt
from lab.istiod import proxy_files
from lab.istiod.placement import LOOPBACK, PODS
from lab.istiod.process import command
from lab.kinds.kubernetes import service
from lab.kinds.kubernetes.core import ServicePort as ManifestPort
from lab.manifests import load
from lab.manifests.read import ManifestError
from lab.model import Json, Pod, ProxyConfig
from tests.istiod.scenarios import all_scenarios
from tests.support.repository import ROOT

KINDS, CLUSTER, NET = "tests/lab/kinds/", "tests/lab/cluster/", "tests/lab/net/"
CLI, HERE = "tests/lab/cli/", "tests/docs/test_differences.py"

HELD: dict[str, str] = {
    # The cluster.
    "any image": f"{CLUSTER}test_pure.py test_images_are_known_by_name",
    "a container has its own files, users and limits": f"{CLI}test_env.py test_exec_says_it_once",
    "several nodes": f"{CLI}test_commands.py test_what_a_cluster_makes_by_itself_is_shown",
    "pods start when": f"{CLUSTER}test_lab.py test_in_a_crowd_one_pod_of_a_workload_is_ahead",
    "a container that crashes": f"{CLUSTER}test_lab.py test_a_crashing_container_backs_off",
    "ReplicaSets": f"{CLI}test_commands.py test_what_the_lab_refuses_is_one_line",
    "an API server for programs": f"{CLI}test_env.py test_another_program_finds_no_cluster",
    "`kubectl rollout pause`": f"{HERE} test_a_verb_of_kubectl_that_is_not_there",
    "`apply` keeps each field": f"{CLI}test_set.py test_apply_after_a_change_by_hand",
    "`-f` of `patch`": f"{HERE} test_an_option_of_kubectl_that_is_not_there",
    "kubectl says of a JSON patch": f"{CLI}test_patch.py test_a_patch_that_is_refused",
    "the image of a pod": (
        f"{CLI}test_patch.py test_labels_of_pods_can_be_patched_and_their_specs_not"
    ),
    "Jobs": f"{HERE} test_what_is_refused",
    "kustomize": "tests/lab/manifests/test_load.py test_a_kustomization_lists_resources",
    "a load balancer has": f"{CLUSTER}test_node_ports.py test_istios_recipe_finds_the_gateway",
    "a Service with UDP": f"{HERE} test_what_is_refused",
    # The mesh.
    "on a port without a protocol": f"{KINDS}test_inbound.py test_every_container_port_is_served",
    "clusters discover": f"{HERE} test_endpoints_and_certificates_are_written_into_the_files",
    "a gateway's server, or a cluster": f"{HERE} test_a_server_without_its_secret_is_not_there",
    "`istio.stats` makes": "tests/lab/observe/test_failures.py test_a_failure_is_counted",
    "`istio.metadata_exchange`": f"{HERE} test_istios_own_filters_are_not_there",
    "two worker threads": f"{HERE} test_an_envoy_has_one_thread_and_drains_for_a_second",
    "a ProxyConfig": f"{KINDS}test_inbound.py test_a_proxy_config_holds_at_once",
    "a connection to a listener": f"{HERE} test_an_envoy_has_one_thread_and_drains_for_a_second",
    "of several `addresses`": f"{HERE} test_all_addresses_of_a_service_entry_are_domains",
    "of a Service and a ServiceEntry": (
        f"{HERE} test_of_a_service_and_an_entry_for_one_host_the_services_protocol_counts"
    ),
    "a Service's port called": f"{HERE} test_a_port_called_udp_is_one_without_a_protocol",
    "the order of resources": f"{HERE} test_the_order_is_that_of_the_first_apply",
    "a pod has the locality": (
        f"{KINDS}test_destination_rule.py test_a_share_for_other_places_leaves_nobody"
    ),
    "several networks": f"{HERE} test_what_is_refused",
    "an IstioOperator's components": f"{HERE} test_what_is_refused",
    "a revision": f"{HERE} test_what_is_refused",
    "istiod waits `timeout`": (
        f"{CLI}test_commands.py test_keys_that_can_not_be_fetched_are_a_warning"
    ),
    "`istioctl install` pulls": f"{HERE} test_hub_and_tag_are_read_for_nothing",
    "the mesh's configuration is": f"{CLI}test_install.py test_the_config_map_of_the_mesh",
    "an expression of an access log": "tests/istiod/test_verdicts.py test_the_verdict_is_istiods",
    "a file that a DestinationRule names": f"{HERE} test_a_file_of_a_rule_is_given_as_a_file",
    "probes are rewritten": f"{HERE} test_a_probe_asks_past_the_proxy_unless_told",
    "`istio-proxy` is an Envoy": f"{CLUSTER}test_pure.py test_commands_reach_what_they_name",
    "kubectl prints": "tests/istiod/test_verdicts.py test_the_verdict_is_istiods",
    # With --network proxy.
    "DNS": f"{CLUSTER}test_pure.py test_host_names_lead_to_services",
    "a pod reaches any address directly": (
        f"{KINDS}test_egress.py test_a_tcp_service_has_a_listener_beside_the_application"
    ),
    "a pod connects from its own address": (
        f"{KINDS}test_inbound.py test_the_server_sees_the_address_of_the_calling_pod"
    ),
    "the client's address": (
        f"{KINDS}test_gateway.py test_a_client_on_this_machine_has_the_machines_address"
    ),
    "what istiod sends": f"{HERE} test_adapt_changes_what_istiod_sends",
    "iptables lead everything": f"{KINDS}test_inbound.py test_an_unused_port_of_the_pod_refuses",
    "a request goes to the listener": (
        f"{KINDS}test_egress.py test_the_url_decides_and_not_the_host_header"
    ),
    "a TCP Service is reached": f"{HERE} test_apply_warns_of_what_the_loopback_does_not_give",
    "traffic to unknown hosts": (
        f"{KINDS}test_egress.py test_unknown_hosts_are_reached_by_default"
    ),
    "REGISTRY_ONLY cuts off": (
        f"{KINDS}test_egress.py test_another_port_of_an_allowed_host_stays_closed"
    ),
    "HTTPS is recognised": f"{KINDS}test_egress.py test_a_tls_service_entry_opens_one_server_name",
    "headless Services": f"{HERE} test_a_headless_service_is_balanced",
    "`simple: PASSTHROUGH`": f"{HERE} test_apply_warns_of_what_the_loopback_does_not_give",
    "`inbound\\|8080": f"{KINDS}test_inbound.py test_every_container_port_is_served",
    "a name in a cluster of an EnvoyFilter": f"{HERE} test_a_name_of_a_service_has_its_endpoints",
    "a Sidecar's listener": f"{HERE} test_apply_warns_of_what_the_loopback_does_not_give",
    "the status port of a gateway": (
        f"{CLUSTER}test_node_ports.py "
        "test_the_status_port_has_a_node_port_where_pods_have_a_network"
    ),
    "the access log has": f"{KINDS}test_egress.py test_the_access_log_has_the_client_with_port_0",
    # With --network pods.
    "pods reach the outside": f"{CLUSTER}test_pod_network.py test_what_is_no_tcp_over_ipv4",
    "istio-init knows the proxy": (
        f"{CLUSTER}test_pod_network.py test_the_proxys_own_commands_go_past_the_proxy"
    ),
    "an address of the outside": f"{NET}test_ways.py test_what_the_outside_refuses_is_reset",
    "a container has its own files |": (
        f"{CLUSTER}test_pod_network.py test_volumes_are_where_the_manifest_mounts_them"
    ),
    "nothing on the node's localhost": (
        f"{NET}test_ways.py test_a_pod_reaches_the_machines_localhost_by_its_name_and_large_"
        "answers_are_whole"
    ),
    "a client outside is seen": (
        f"{NET}test_ways.py test_the_node_reaches_a_pod_from_its_own_address"
    ),
}
"""The test of each row, by the beginning of the row."""


def rows() -> list[str]:
    lines = (ROOT / "docs/differences.md").read_text().splitlines()
    cells = [line.removeprefix("| ") for line in lines if line.startswith("| ")]
    return [row for row in cells if not row.startswith(("---", "on a cluster |"))]


@pytest.mark.parametrize("row", rows())
def test_a_row_has_its_test(row: str) -> None:
    found = [start for start in HELD if row.startswith(start)]
    assert found, "name the test that holds this row"
    test = HELD[max(found, key=len)]
    file, name = test.split()
    assert re.search(rf"^def {name}\(", (ROOT / file).read_text(), re.MULTILINE), test


@pytest.mark.parametrize("start", HELD)
def test_a_test_has_its_row(start: str) -> None:
    assert any(row.startswith(start) for row in rows())


OPERATOR = "apiVersion: install.istio.io/v1alpha1\nkind: IstioOperator\nmetadata: {name: x}\nspec: "
SLICE = "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {name: x}\n"
SERVICE = "apiVersion: v1\nkind: Service\nmetadata: {name: x}\nspec: "


@pytest.mark.parametrize(
    "manifest",
    [
        *(
            f"apiVersion: {group}/v1\nkind: {kind}\nmetadata: {{name: x}}\nspec: {{}}\n"
            for group, kind in (
                ("batch", "Job"),
                ("batch", "CronJob"),
                ("apps", "DaemonSet"),
                ("networking.k8s.io", "Ingress"),
                ("apiextensions.k8s.io", "CustomResourceDefinition"),
                ("gateway.networking.k8s.io", "Gateway"),
            )
        ),
        SLICE + "addressType: IPv6",
        SLICE + "addressType: FQDN",
        SERVICE + "{selector: {app: x}, ports: [{port: 80, protocol: UDP}]}",
        SERVICE + "{selector: {app: x}, sessionAffinity: ClientIP, ports: [{port: 80}]}",
        OPERATOR + "{components: {egressGateways: [{name: istio-egressgateway, enabled: true}]}}",
        OPERATOR + "{components: {ingressGateways: [{name: another, enabled: true}]}}",
        OPERATOR + "{revision: canary}",
        OPERATOR + "{values: {pilot: {env: {PILOT_ENABLE_ALPHA_GATEWAY_API: true}}}}",
    ],
)
def test_what_is_refused(manifest: str) -> None:
    with pytest.raises(ManifestError):
        load.parse([("x", manifest)])


@pytest.mark.parametrize("words", ["rollout pause deploy/ui", "create role r", "authz check x"])
def test_a_verb_of_kubectl_that_is_not_there(
    words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words.split()) == 1
    said = capsys.readouterr().err
    assert "No such command" in said or "is not in the lab: " in said


@pytest.mark.parametrize(
    "words",
    [
        "patch -f x.yaml -p {}",
        "patch deploy ui --subresource=scale -p {}",
        "set image -f x.yaml a=b",
        "set env deploy/ui --local A=b",
        "set env deploy/ui --from=cm/a",
        "set env deploy/ui --env A=b",
        "create --edit -f x.yaml",
        "create cm a --save-config",
        "create secret generic a --append-hash",
    ],
)
def test_an_option_of_kubectl_that_is_not_there(
    words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words.split()) == 1
    assert "No such option" in capsys.readouterr().err


def test_the_missing_verbs_are_those_of_the_page() -> None:
    page = (ROOT / "docs/differences.md").read_text()
    row = next(line for line in page.splitlines() if line.startswith("| `kubectl rollout pause`"))
    assert [verb for verbs in MISSING.values() for verb in verbs if f"`{verb}`" not in row] == []


def test_hub_and_tag_are_read_for_nothing() -> None:
    warnings = load.parse([("x", OPERATOR + "{hub: a, tag: b, profile: demo}")]).warnings
    assert any("hub" in line for line in warnings)
    assert any("tag" in line for line in warnings)


def given(scenario: str, prefix: str) -> tuple[ProxyConfig, Pod]:
    """Returns what istiod sends a pod of a scenario, and the pod."""
    snapshot = all_scenarios()[scenario].snapshot()
    pod = next(one for one in snapshot.pods if one.name.startswith(prefix))
    return translate.proxy_config(snapshot, pod), pod


def found(value: Any, key: str) -> Iterator[Any]:
    """The values of a key anywhere in a configuration."""
    if isinstance(value, dict):
        yield from (item for name, item in value.items() if name == key)
        value = list(value.values())
    if isinstance(value, list):
        for item in value:
            yield from found(item, key)


def test_endpoints_and_certificates_are_written_into_the_files() -> None:
    config, _ = given("gateway-tls", "istio-ingressgateway")
    assert "EDS" in [cluster.get("type") for cluster in config.clusters]
    files = [json.loads(text) for text in proxy_files.files(config).values()]
    assert "EDS" not in list(found(files, "type"))
    assert "ads" not in [key for source in found(files, "sds_config") for key in source]
    assert "inline_bytes" in json.dumps(list(found(files, "tls_certificates")))


def test_a_server_without_its_secret_is_not_there() -> None:
    config, _ = given("gateway-tls", "istio-ingressgateway")
    without = ProxyConfig(config.listeners, [], [], [])
    assert len(secrets.listeners(without)) < len(secrets.listeners(config))
    config, _ = given("dr-credential", "ui")
    without = ProxyConfig([], config.clusters, [], [])
    assert len(secrets.clusters(without)) < len(secrets.clusters(config))


def test_istios_own_filters_are_not_there() -> None:
    config, _ = given("base", "ui")
    names = [name for name in found(config.listeners, "name") if isinstance(name, str)]
    assert "envoy.filters.http.grpc_stats" in names
    assert [name for name in names if name.startswith("istio.")] == []


def test_an_envoy_has_one_thread_and_drains_for_a_second(tmp_path: Any) -> None:
    words = " ".join(command(tmp_path))
    assert "--concurrency 1 " in words
    assert "--drain-time-s 1" in words


def test_the_order_is_that_of_the_first_apply() -> None:
    rule = "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: %s}\nspec: "
    spec = "{hosts: [a], http: [{directResponse: {status: 200}}]}\n---\n"
    loaded = load.parse([("x", rule % "second" + spec + rule % "first" + spec)]).resources
    snapshot = snapshots.snapshot(loaded)
    assert [one.name for one in snapshot.of("VirtualService")] == ["second", "first"]


def with_entry(spec: str, *, order: int = 0) -> tuple[ProxyConfig, ProxyConfig]:
    """Returns the configuration of the ui without a ServiceEntry and with it."""
    text = "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {name: x}\n"
    (added,) = load.parse([("x", f"{text}spec: {spec}")]).resources
    snapshot = all_scenarios()["base"].snapshot()
    pod = next(one for one in snapshot.pods if one.name.startswith("ui"))
    config = {**snapshot.config, "ServiceEntry": (replace(added, order=order),)}
    return (
        translate.proxy_config(snapshot, pod),
        translate.proxy_config(replace(snapshot, config=config), pod),
    )


def test_all_addresses_of_a_service_entry_are_domains() -> None:
    _, config = with_entry(
        "{hosts: [x.example], addresses: [192.0.2.4, 192.0.2.5], resolution: DNS, "
        "ports: [{number: 7801, name: http, protocol: HTTP}]}"
    )
    (hosts,) = [one["virtual_hosts"] for one in config.routes if one["name"] == "7801"]
    domains = next(one["domains"] for one in hosts if one["name"] == "x.example:7801")
    assert {"192.0.2.4", "192.0.2.5"} <= {*domains}


def test_of_a_service_and_an_entry_for_one_host_the_services_protocol_counts() -> None:
    host = "message-service.default.svc.cluster.local"
    before, after = with_entry(
        f"{{hosts: [{host}], resolution: STATIC, endpoints: [{{address: 192.0.2.4}}], "
        "ports: [{number: 80, name: tcp, protocol: TCP}]}",
        order=-1,
    )
    name = f"outbound|80||{host}"
    assert cluster(after, name) == cluster(before, name)


def test_a_port_called_udp_is_one_without_a_protocol() -> None:
    assert service.protocol(ManifestPort(name="udp-dns", port=9000)) == "AUTO"


def test_a_file_of_a_rule_is_given_as_a_file() -> None:
    config, _ = given("destination-rules-tls", "ui")
    clusters = secrets.clusters(config)
    names = {str(one.get("filename")) for one in found(clusters, "certificate_chain")}
    assert names
    assert not any(name == "None" for name in names)


def test_a_probe_asks_past_the_proxy_unless_told() -> None:
    _, pod = given("base", "ui")
    assert probes.way(pod) == "agent"
    assert probes.way(replace(pod, annotations={probes.REWRITE: "false"})) == "kubelet"


def test_adapt_changes_what_istiod_sends() -> None:
    config, pod = given("base", "ui")
    adapted = adapt(config, pod)
    assert "http_proxy" in [one["name"] for one in adapted.listeners]
    assert "http_proxy" not in [one["name"] for one in config.listeners]
    assert adapted.listeners != config.listeners


@pytest.mark.parametrize(
    ("scenario", "kind"),
    [
        ("two-services-one-port-tcp", "Service"),
        ("dr-passthrough", "DestinationRule"),
        ("sidecar-ingress-endpoints", "Sidecar"),
    ],
)
def test_apply_warns_of_what_the_loopback_does_not_give(scenario: str, kind: str) -> None:
    files = all_scenarios()[scenario].texts()
    resources = load.parse(files).resources
    snapshot = snapshots.snapshot(resources)
    asked = [one for one in resources if one.kind == kind]
    assert any(True for one in asked for _ in LOOPBACK.limits(one, snapshot))
    assert not any(True for one in asked for _ in PODS.limits(one, snapshot))


def cluster(config: ProxyConfig, name: str) -> Json:
    return next(one for one in config.clusters if one["name"] == name)


def test_a_headless_service_is_balanced() -> None:
    config, pod = given("base", "guestbook-service")
    name = "outbound|3306||mysql.default.svc.cluster.local"
    assert cluster(config, name)["type"] == "ORIGINAL_DST"
    adapted = cluster(adapt(config, pod), name)
    assert adapted["type"] == "STATIC"
    assert list(found(adapted["load_assignment"], "address"))


def test_a_name_of_a_service_has_its_endpoints() -> None:
    config, pod = given("rate-limit-cluster", "istio-ingressgateway")
    named = [one for one in config.clusters if one.get("type") == "STRICT_DNS"]
    assert named
    for one in named:
        assert cluster(adapt(config, pod), one["name"])["type"] == "STATIC"
