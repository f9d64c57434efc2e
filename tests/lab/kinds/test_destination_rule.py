"""DestinationRule, as a client behind a real sidecar sees it."""

from __future__ import annotations

import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from lab.envoy import translate
from lab.kinds.destination_rule import dynamic_dns
from lab.kinds.destination_rule.becomes import UNLIMITED
from tests.support import harness, sample
from tests.support.harness import Mesh
from tests.support.routing import SUBSETS, V1, attempts, routed, rule, version
from tests.support.wait import wait


def together(mesh: Mesh, count: int, url: str = "http://server/") -> list[httpx.Response]:
    """Requests sent at the same time."""
    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(lambda _: mesh.request("client", url), range(count)))


def test_subsets_are_chosen_by_labels(mesh: Mesh) -> None:
    mesh.apply(routed(f"- {V1}"))
    assert {version(mesh) for _ in range(6)} == {"1.0"}
    mesh.set_ready("server-v1", False)
    try:
        reply = mesh.request("client", "http://server/")
        assert (reply.status_code, reply.text) == (503, "no healthy upstream")
    finally:
        mesh.set_ready("server-v1", True)
    assert version(mesh) == "1.0"


@pytest.mark.parametrize(
    ("balancer", "sent", "pods"),
    [
        ("{simple: ROUND_ROBIN}", [{}], 2),
        ("{simple: RANDOM}", [{}], 2),
        ("{simple: LEAST_REQUEST}", [{}], 2),
        ("{consistentHash: {httpHeaderName: x-user}}", [{"x-user": "ann"}], 1),
        ("{consistentHash: {httpHeaderName: x-user}}", [{"x-user": str(n)} for n in range(20)], 2),
        ("{consistentHash: {useSourceIp: true}}", [{}], 1),
        (
            "{consistentHash: {httpHeaderName: x-user, maglev: {tableSize: 251}}}",
            [{"x-user": "a"}],
            1,
        ),
    ],
)
def test_load_balancing(mesh: Mesh, balancer: str, sent: list[dict[str, str]], pods: int) -> None:
    mesh.apply(rule(f"loadBalancer: {balancer}"))
    seen = {version(mesh, **headers) for headers in sent * 30}
    assert len(seen) == pods


def test_round_robin_takes_turns(mesh: Mesh) -> None:
    mesh.apply(rule("loadBalancer: {simple: ROUND_ROBIN}"))
    assert Counter(version(mesh) for _ in range(20)) == {"1.0": 10, "2.0": 10}


def test_hashing_a_query_parameter_or_a_cookie(mesh: Mesh) -> None:
    mesh.apply(rule("loadBalancer: {consistentHash: {httpQueryParameterName: user}}"))
    assert len({version(mesh, "/?user=ann") for _ in range(20)}) == 1
    assert len({version(mesh, f"/?user={n}") for n in range(20)}) == 2
    mesh.apply(rule("loadBalancer: {consistentHash: {httpCookie: {name: session, ttl: 60s}}}"))
    first = mesh.request("client", "http://server/")
    cookie = first.headers["set-cookie"].split(";")[0]
    assert cookie.startswith("session=")
    assert {version(mesh, cookie=cookie) for _ in range(20)} == {first.json()["version"]}


def test_a_full_connection_pool_refuses(mesh: Mesh) -> None:
    mesh.apply(
        rule(
            """
            connectionPool:
              tcp: {maxConnections: 1}
              http: {http1MaxPendingRequests: 1}
            """
        )
        + routed(f"- {V1}").replace(SUBSETS, "").replace(", subset: v1", "")
    )
    for pod in ("server-v1", "server-v2"):
        mesh.pods[pod].server.delay = 0.5  # type: ignore[union-attr]
    replies = together(mesh, 6)
    refused = [reply for reply in replies if reply.status_code == 503]
    assert 0 < len(refused) < 6
    assert "reset reason: overflow" in refused[0].text
    assert refused[0].headers["x-envoy-overloaded"] == "true"


def test_max_requests_per_connection_closes_connections(mesh: Mesh) -> None:
    mesh.apply(
        rule("connectionPool: {http: {maxRequestsPerConnection: 1}}")
        + routed(f"- {V1}").split("---\n", 1)[1].replace(", subset: v1", "")
    )
    name = "cluster.outbound|80||server.default.svc.cluster.local;.upstream_cx_total"
    admin = mesh.pods["client"].admin
    before = admin.stats(f"{name}$".replace("|", r"\|")).get(name, 0)
    for _ in range(5):
        assert version(mesh) in ("1.0", "2.0")
    assert admin.stats(f"{name}$".replace("|", r"\|"))[name] - before == 5


def test_outlier_detection_ejects_a_failing_pod(mesh: Mesh) -> None:
    mesh.pods["server-v1"].server.status = 503  # type: ignore[union-attr]
    mesh.apply(
        rule(
            """
            outlierDetection:
              consecutive5xxErrors: 3
              interval: 1s
              baseEjectionTime: 60s
              maxEjectionPercent: 50
            """
        )
    )
    seen = Counter(version(mesh) for _ in range(40))
    assert seen["503"] == 3
    assert attempts(mesh) == 3
    assert "/failed_outlier_check" in mesh.pods["client"].admin.get("/clusters")


def test_without_max_ejection_percent_one_of_two_pods_is_never_ejected(mesh: Mesh) -> None:
    """Envoy's default of 10 % holds, as on a cluster; consecutiveErrors is ignored there too."""
    mesh.pods["server-v1"].server.status = 503  # type: ignore[union-attr]
    mesh.apply(rule("outlierDetection: {consecutive5xxErrors: 1, consecutiveErrors: 1}"))
    assert {version(mesh) for _ in range(30)} == {"503", "2.0"}


def test_when_all_pods_are_ejected_there_is_no_healthy_upstream(mesh: Mesh) -> None:
    for pod in ("server-v1", "server-v2"):
        mesh.pods[pod].server.status = 502  # type: ignore[union-attr]
    mesh.apply(
        rule(
            """
            outlierDetection: {consecutiveGatewayErrors: 1, consecutive5xxErrors: 0,
                               baseEjectionTime: 60s, maxEjectionPercent: 100}
            """
        )
    )
    wait(lambda: mesh.request("client", "http://server/").text == "no healthy upstream")


def test_an_exact_host_beats_a_wildcard_and_they_never_merge(mesh: Mesh) -> None:
    """The exact rule says nothing of load balancing, and gets nothing from the wildcard's."""
    wildcard = rule(
        "loadBalancer: {consistentHash: {httpHeaderName: x-user}}",
        host='"*.default.svc.cluster.local"',
        name="wildcard",
    )
    mesh.apply(wildcard)
    assert len({version(mesh, **{"x-user": "ann"}) for _ in range(20)}) == 1
    mesh.apply(wildcard + rule(rest='subsets: [{name: v1, labels: {version: "1.0"}}]'))
    assert len({version(mesh, **{"x-user": "ann"}) for _ in range(30)}) == 2


def test_the_clients_namespace_comes_before_the_services_and_the_root(mesh: Mesh) -> None:
    hashing = "loadBalancer: {consistentHash: {httpHeaderName: x-user}}"
    fqdn = "server.default.svc.cluster.local"
    root = rule(hashing, host=fqdn, name="root").replace(
        "{name: root}", "{name: root, namespace: istio-system}"
    )
    mesh.apply(root)
    assert len({version(mesh, **{"x-user": "ann"}) for _ in range(20)}) == 1
    mesh.apply(root + rule("loadBalancer: {simple: ROUND_ROBIN}"))
    assert len({version(mesh, **{"x-user": "ann"}) for _ in range(20)}) == 2


def test_rules_of_the_same_host_merge_their_subsets(mesh: Mesh) -> None:
    one = rule(name="one", rest='subsets: [{name: v1, labels: {version: "1.0"}}]')
    two = rule(name="two", rest='subsets: [{name: v2, labels: {version: "2.0"}}]')
    service = routed(
        f"- match: [{{uri: {{prefix: /1}}}}]\n  {V1}\n"
        "- route: [{destination: {host: server, subset: v2}}]"
    ).split("---\n", 1)[1]
    mesh.apply(one + two + service)
    assert (version(mesh, "/1"), version(mesh, "/2")) == ("1.0", "2.0")


def test_port_level_settings_replace_and_subsets_override(mesh: Mesh) -> None:
    """A port's own settings inherit nothing; a subset keeps what it does not name."""
    hashing = "loadBalancer: {consistentHash: {httpHeaderName: x-user}}"
    pool = "connectionPool: {tcp: {maxConnections: 9}}"
    mesh.apply(rule(f"{hashing}\nportLevelSettings: [{{port: {{number: 80}}, {pool}}}]"))
    assert len({version(mesh, **{"x-user": "ann"}) for _ in range(30)}) == 2
    subset = """
    subsets:
    - name: all
      labels: {app: server}
      trafficPolicy: {connectionPool: {tcp: {maxConnections: 9}}}
    """
    service = routed("- route: [{destination: {host: server, subset: all}}]").split("---\n", 1)[1]
    mesh.apply(rule(hashing, rest=subset) + service)
    assert len({version(mesh, **{"x-user": "ann"}) for _ in range(30)}) == 1


def test_the_meshs_default_fills_what_no_rule_sets(mesh: Mesh) -> None:
    default = {"connectionPool": {"tcp": {"maxConnections": 7}}}
    mesh.mesh_config["defaultTrafficPolicy"] = default

    def limits(cluster: str, manifest: str = "") -> int:
        mesh.config = harness.resources(manifest)
        found = translate.proxy_config(mesh.snapshot(), mesh.pods["client"].pod).clusters
        (one,) = (item for item in found if item["name"] == cluster)
        limit: int = one["circuit_breakers"]["thresholds"][0]["max_connections"]
        return limit

    try:
        server = "outbound|80|{}|server.default.svc.cluster.local"
        own = "connectionPool: {tcp: {maxConnections: 9}}"
        others = "portLevelSettings: [{port: {number: 80}, loadBalancer: {simple: RANDOM}}]"
        subset = f"subsets: [{{name: v1, labels: {{app: server}}, trafficPolicy: {{{others}}}}}]"
        assert limits("PassthroughCluster") == 7
        assert limits(server.format("")) == 7
        assert limits(server.format(""), rule(own)) == 9
        assert limits(server.format(""), rule(others)) == 7
        assert limits(server.format("v1"), rule(own, rest=subset)) == UNLIMITED
    finally:
        mesh.mesh_config.pop("defaultTrafficPolicy")


def test_a_rule_exported_elsewhere_does_not_apply(mesh: Mesh) -> None:
    hashing = "loadBalancer: {consistentHash: {httpHeaderName: x-user}}"
    mesh.apply(rule(hashing, rest="exportTo: [elsewhere]"))
    assert len({version(mesh, **{"x-user": "ann"}) for _ in range(30)}) == 2


def test_a_workload_selector_limits_the_rule_to_clients(mesh: Mesh) -> None:
    hashing = "loadBalancer: {consistentHash: {httpHeaderName: x-user}}"
    for app, pods in (("client", 1), ("another", 2)):
        mesh.apply(rule(hashing, rest=f"workloadSelector: {{matchLabels: {{app: {app}}}}}"))
        assert len({version(mesh, **{"x-user": "ann"}) for _ in range(30)}) == pods


def test_concurrent_updates_do_not_drop_requests(mesh: Mesh) -> None:
    """Routes, subsets and endpoints change under load, and nobody notices."""
    failures: list[str] = []
    done = threading.Event()

    def ask() -> None:
        while not done.is_set():
            reply = mesh.request("client", "http://server/")
            if reply.status_code != 200:
                failures.append(f"{reply.status_code} {reply.text}")

    with ThreadPoolExecutor(3) as pool:
        for _ in range(3):
            pool.submit(ask)
        try:
            for round_number in range(6):
                mesh.apply(routed(f"- {V1}\n  timeout: {round_number + 1}s"))
                mesh.apply(rule("loadBalancer: {simple: RANDOM}"))
                mesh.set_ready("server-v2", False)
                mesh.set_ready("server-v2", True)
                mesh.apply()
        finally:
            done.set()
    assert failures == []


def test_an_update_takes_effect_at_once(mesh: Mesh) -> None:
    for number in range(5):
        started = time.monotonic()
        mesh.apply(routed(f"- directResponse: {{status: 200, body: {{string: '{number}'}}}}"))
        assert mesh.request("client", "http://server/").text == str(number)
        assert time.monotonic() - started < 1.0


def test_endpoints_that_share_labels_with_the_client_come_first(mesh: Mesh) -> None:
    failover = "loadBalancer: {localityLbSetting: {failoverPriority: [%s]}}"
    mesh.apply(rule(failover % "version=2.0"))
    assert {version(mesh) for _ in range(20)} == {"1.0", "2.0"}, "without outlier detection"
    outlier = "outlierDetection: {consecutive5xxErrors: 1, maxEjectionPercent: 100}\n"
    mesh.apply(rule(outlier + failover % "version=2.0"))
    wait(lambda: {version(mesh) for _ in range(20)} == {"2.0"})
    second = mesh.pods["server-v2"].server
    assert second is not None
    second.status = 503
    wait(lambda: {version(mesh) for _ in range(20)} == {"1.0"})


def test_a_share_for_other_places_leaves_nobody(mesh: Mesh) -> None:
    share = 'loadBalancer: {localityLbSetting: {distribute: [{from: "*", to: {"%s": 100}}]}}'
    mesh.apply(rule(share % "*"))
    assert mesh.request("client", "http://server/").status_code == 200
    mesh.apply(rule(share % "us/*"))
    wait(lambda: mesh.request("client", "http://server/").status_code == 503)


def test_what_istiod_does_not_survive_is_said() -> None:
    """Its answer to this is a panic, so there is no scenario to compare with."""
    entry = (
        "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {name: cloud}\n"
        "spec: {hosts: ['*.cloud.example'], resolution: %s, "
        "ports: [{number: 80, name: http, protocol: HTTP}]}\n---\n"
    )
    outlier = rule("outlierDetection: {consecutive5xxErrors: 1}", host='"*.cloud.example"')
    for resolution, said in (("DYNAMIC_DNS", 1), ("NONE", 0)):
        found = sample.with_manifests(entry % resolution + outlier)
        (own,) = found.of("DestinationRule")
        assert len(list(dynamic_dns.problems(own, found))) == said
