"""The rule behind a reported request, by the configuration of its time."""

from __future__ import annotations

from dataclasses import replace

from lab.explain import reported
from lab.model import Pod, Snapshot
from lab.observe.requests import NOBODY, Request, Workload
from tests.support import reports
from tests.support.golden import mesh

DENY = """
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {{name: {name}, namespace: default}}
spec:
  selector: {{matchLabels: {{app: server}}}}
  action: DENY
  rules:
  - to: [{{operation: {{paths: [/{name}]}}}}]
"""
BEFORE, AFTER = mesh(DENY.format(name="first")), mesh("\n\n" + DENY.format(name="first"))
SERVER = Workload("default", "server", pod="server-2", meshed=True)
DETAILS = "rbac_access_denied_matched_policy[ns[default]-policy[first]-rule[0]]"


def denied(time: float, proxy: Workload = SERVER) -> Request:
    return reports.request(
        time=time, reporter="destination", destination=proxy, code=403, details=DETAILS
    )


def test_a_request_has_the_line_that_its_policy_had_when_it_came() -> None:
    asked: list[float] = []

    def in_force_at(time: float) -> Snapshot:
        asked.append(time)
        return BEFORE if time < 10 else AFTER

    find = reported.finder(in_force_at)
    lines = [int(find(denied(time))[0].rpartition(":")[2]) for time in (1, 2, 11, 12, 3)]
    first = lines[0]
    assert lines == [first, first, first + 2, first + 2, first]
    assert asked == [1, 2, 11, 12, 3]


def test_a_pod_of_the_same_name_in_another_namespace_has_rules_of_its_own() -> None:
    pods = [pod for pod in BEFORE.pods if pod.name == "server-2"]
    twins = (replace(pods[0], namespace="elsewhere"), *BEFORE.pods)
    find = reported.finder(lambda _: replace(BEFORE, pods=twins, config=ALLOWED.config))
    undecided = reports.request(reporter="destination", details="rbac_access_denied", code=403)
    own = replace(undecided, destination=SERVER)
    other = replace(undecided, destination=replace(SERVER, namespace="elsewhere"))
    assert find(own)[0] != ""
    assert find(other)[0] == ""


ALLOWED = mesh(DENY.format(name="first").replace("DENY", "ALLOW"))


def test_requests_that_went_well_ask_for_no_configuration() -> None:
    def fails(time: float) -> Snapshot:
        raise AssertionError(time)

    assert reported.finder(fails)(reports.request()) == ("", "")


PLAIN = """
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: strict, namespace: default}
spec: {mtls: {mode: STRICT}}
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: plain, namespace: default}
spec: {host: server, trafficPolicy: {tls: {mode: DISABLE}}}
"""


def test_both_sides_of_a_refused_connection_name_the_rule_and_the_policy() -> None:
    snapshot = replace(mesh(PLAIN), certificates="/c")
    pods = {pod.name: pod for pod in snapshot.pods}
    client = Workload("default", "client", pod="client-1", meshed=True)
    address = f"{pods['server-2'].address}:8080"
    cluster = "outbound|80||server.default.svc.cluster.local"
    ends = {"source": client, "destination": SERVER, "details": "", "code": 0}
    sent = reports.request(**ends, flags=("UC",), cluster=cluster, upstream=address)
    taken = reports.request(**ends, flags=("NR",), reporter="destination", address=address)
    find = reported.finder(lambda _: snapshot)
    assert find(sent) == find(taken)
    place, text = find(sent)
    rule, policy = snapshot.of("DestinationRule")[0], snapshot.of("PeerAuthentication")[0]
    assert place == rule.source.at("spec", "trafficPolicy", "tls")
    assert text.startswith("DestinationRule default/plain sends plain text, but PeerAuth")
    assert policy.source.at("spec", "mtls") in text
    other = replace(sent, destination=client, upstream=f"{pods['client-1'].address}:8080")
    assert find(other)[1] == ""
    place, text = find(replace(taken, source=NOBODY))
    assert place == policy.source.at("spec", "mtls")
    assert text.startswith("a client without a sidecar sends plain text, but PeerAuthentication")


NOBODYS = """
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: subsets, namespace: default}
spec:
  host: server
  subsets:
  - {name: v1, labels: {app: server}}
  - {name: v2, labels: {version: v2}}
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: outside, namespace: default}
spec:
  hosts: [no-such.example]
  ports: [{number: 80, name: http, protocol: HTTP}]
  resolution: DNS
"""


def test_a_cluster_without_an_endpoint_says_which_and_why() -> None:
    snapshot = mesh(NOBODYS)
    client = Workload("default", "client", pod="client-1", meshed=True)
    rule, entry = snapshot.of("DestinationRule")[0], snapshot.of("ServiceEntry")[0]
    ends = {"source": client, "destination": NOBODY, "details": "no_healthy_upstream", "code": 503}
    asked = reports.request(**ends, flags=("UH",))

    def told(cluster: str, pods: tuple[Pod, ...] = snapshot.pods) -> tuple[str, str]:
        find = reported.finder(lambda _: replace(snapshot, pods=pods))
        return find(replace(asked, cluster=cluster))

    server = "server.default.svc.cluster.local"
    place, text = told(f"outbound|80|v2|{server}")
    assert place == rule.source.at("spec", "subsets", 1)
    assert text == f"subset v2 selects no pod of {server} (version=v2)"
    assert told("outbound|80||no-such.example") == (
        entry.source.at("spec"),
        "the name no-such.example could not be resolved",
    )
    down = tuple(replace(pod, ready=pod.name == "client-1") for pod in snapshot.pods)
    assert told(f"outbound|80|v1|{server}", down)[1].startswith("none of the pods of subset v1 of")
    gone = tuple(pod for pod in snapshot.pods if pod.name == "client-1")
    assert told(f"outbound|80||{server}", gone)[1] == f"{server} has no endpoint"
    assert told(f"outbound|80|v1|{server}")[1] == ""
