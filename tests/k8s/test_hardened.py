"""The hardened overlay: what it closes, and that the lessons can be done on it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml

from tests.k8s.manifests import K8S, Manifest, kustomize, load, pods
from tests.k8s.pod_security import violations
from tests.support.repository import ISTIO, LESSONS

NAMES = {"ui", "message-service", "guestbook-service", "redis", "mysql"}
RESOURCES = {"cpu", "memory", "ephemeral-storage"}


def hardened() -> list[Manifest]:
    return kustomize(K8S / "overlays/hardened")


def of_kind(manifests: list[Manifest], kind: str) -> list[Manifest]:
    return [manifest for manifest in manifests if manifest["kind"] == kind]


def test_the_namespace_takes_restricted_pods_alone() -> None:
    (namespace,) = of_kind(hardened(), "Namespace")
    assert namespace["metadata"]["name"] == "default"
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"


def lesson_pods() -> Iterator[tuple[str, dict[str, Any]]]:
    for path in sorted(ISTIO.glob("*/*.yaml")):
        for document in load(path):
            if document["kind"] == "Pod":
                yield f"{path.parent.name}/{path.name}", document["spec"]
            elif document["kind"] == "Deployment":
                yield f"{path.parent.name}/{path.name}", document["spec"]["template"]["spec"]


each_lesson_pod = pytest.mark.parametrize(
    ("name", "spec"), list(lesson_pods()), ids=lambda value: value if isinstance(value, str) else ""
)


@each_lesson_pod
def test_the_pods_of_the_lessons_are_taken_too(name: str, spec: dict[str, Any]) -> None:
    assert list(violations(spec)) == [], name


@each_lesson_pod
def test_the_pods_of_the_lessons_are_bounded_and_are_no_user_of_the_node(
    name: str, spec: dict[str, Any]
) -> None:
    for container in spec["containers"]:
        for bound in ("requests", "limits"):
            assert set(container["resources"][bound]) == RESOURCES, name
    user = spec["securityContext"]
    assert user["runAsUser"] == user["runAsGroup"] > 10_000, name


def test_the_mesh_needs_no_privileged_init_container() -> None:
    install = yaml.safe_load((ISTIO / "install/cni.yaml").read_text())
    assert install["spec"]["components"]["cni"]["enabled"] is True


def test_redis_and_the_ui_read_the_same_password_from_files() -> None:
    found = dict(pods(hardened()))
    (redis,) = found["redis"]["spec"]["containers"]
    assert redis["args"][:2] == ["redis-server", "/run/credentials/redis.conf"]
    (ui,) = found["ui"]["spec"]["containers"]
    variables = {v["name"]: v.get("value") for v in ui["env"]}
    assert variables["REDIS_PASSWORD_FILE"] == "/run/credentials/password"
    sources = {
        volume["secret"]["secretName"]
        for name in ("redis", "ui")
        for volume in found[name]["spec"]["volumes"]
    }
    assert sources == {"redis-credentials"}


def test_what_the_lessons_add_gets_into_redis_too() -> None:
    """The second ui, and the rate limit service: with the password where there is one."""
    clients = []
    for name, spec in lesson_pods():
        for item in spec["containers"]:
            variables = {v["name"]: v for v in item.get("env", [])}
            if {"REDIS_HOST", "REDIS_URL"} & variables.keys():
                clients.append(name)
                source = variables.get("REDIS_PASSWORD", variables.get("REDIS_AUTH"))
                assert source is not None, name
                assert source["valueFrom"]["secretKeyRef"] == {
                    "name": "redis-credentials",
                    "key": "password",
                    "optional": True,
                }
    assert len(clients) == 4


@pytest.mark.parametrize("folder", ["base", "overlays/hardened"])
def test_no_password_is_in_the_environment(folder: str) -> None:
    variables = [
        (name, variable)
        for name, pod in pods(kustomize(K8S / folder))
        for container in pod["spec"]["containers"]
        for variable in container.get("env", [])
    ]
    assert variables
    assert [each for each in variables if "secretKeyRef" in each[1].get("valueFrom", {})] == []


# --- who may talk to whom -------------------------------------------------------------------------

Place = tuple[str, dict[str, str]]
"""A namespace and a pod's labels."""


def selects(selector: dict[str, Any], labels: dict[str, str]) -> bool:
    return selector.get("matchLabels", {}).items() <= labels.items() and all(
        labels.get(e["key"]) in e["values"] for e in selector.get("matchExpressions", [])
    )


def is_peer(peer: dict[str, Any], place: Place, own_namespace: str) -> bool:
    namespace, labels = place
    if "ipBlock" in peer:
        return False
    if "namespaceSelector" in peer:
        there = {"kubernetes.io/metadata.name": namespace}
        return selects(peer["namespaceSelector"], there) and selects(
            peer.get("podSelector", {}), labels
        )
    return namespace == own_namespace and selects(peer["podSelector"], labels)


def admitted(policies: list[Manifest], client: Place, server: Place, port: int) -> bool:
    """Whether the policies of both sides let a connection through."""
    for kind, field, own, other in (
        ("Egress", "to", client, server),
        ("Ingress", "from", server, client),
    ):
        rules = [
            rule
            for policy in policies
            if policy["metadata"].get("namespace", "default") == own[0]
            and kind in policy["spec"]["policyTypes"]
            and selects(policy["spec"]["podSelector"], own[1])
            for rule in [*policy["spec"].get(kind.lower(), []), {}]
        ]
        if rules and not any(
            rule
            and port in [p["port"] for p in rule["ports"]]
            and any(is_peer(peer, other, "default") for peer in rule[field])
            for rule in rules
        ):
            return False
    return True


def flows() -> Iterator[tuple[str, Place, Place, int]]:
    """Yields the requests of the lessons' own clients, from the steps of the exercises."""
    services = {s["metadata"]["name"]: s for s in of_kind(kustomize(K8S / "base"), "Service")}
    ports = {"http": 8080, "mysql": 3306, "redis": 6379}
    for lesson in LESSONS:
        for step in (*lesson.exercise.steps, *lesson.exercise.lastly):
            if step.send is None or step.send.origin == "ingress":
                continue
            namespace, _, name = step.send.origin.rpartition("/")
            client = (namespace or "default", {"app": name})
            asked = step.send.tcp or step.send.certificate_of or step.send.url or ""
            url = urlsplit(asked if "://" in asked else f"//{asked}")
            host = (url.hostname or "").partition(".")[0]
            app, port = host, 0
            if host.startswith("${"):
                variable = host.strip("${}").removesuffix("_ip").upper()
                (app,) = {
                    s.remember[variable].pod.partition("=")[2]
                    for s in lesson.exercise.steps
                    if variable in s.remember
                }
                port = url.port or 80
            elif host in services:
                port = ports[services[host]["spec"]["ports"][0]["targetPort"]]
            if app in NAMES:
                yield f"{lesson.name}: {step.step}", client, ("default", {"app": app}), port
    ratelimit = ("default", {"app": "ratelimit"})
    yield "11-rate-limiting: counts", ratelimit, ("default", {"app": "redis"}), 6379


def test_the_lessons_need_their_own_policies_and_no_others() -> None:
    closed = of_kind(hardened(), "NetworkPolicy")
    opened = closed + load(ISTIO / "clients/network-policies.yaml")
    seen = list(flows())
    assert {name.partition(":")[0] for name, *_ in seen} >= {"05-retries", "13-mutual-tls"}
    for name, client, server, port in seen:
        assert not admitted(closed, client, server, port), name
        assert admitted(opened, client, server, port), name


@pytest.mark.parametrize(
    ("client", "server", "port", "expected"),
    [
        ("ui", "redis", 6379, True),
        ("ui", "message-service", 8080, True),
        ("guestbook-service", "mysql", 3306, True),
        ("ui", "mysql", 3306, False),
        ("message-service", "guestbook-service", 8080, False),
        ("message-service", "redis", 6379, False),
        ("stranger", "ui", 8080, False),
    ],
)
def test_the_guestbook_talks_to_itself_and_nobody_else(
    client: str, server: str, port: int, expected: bool
) -> None:
    closed = of_kind(hardened(), "NetworkPolicy")
    places = [("default", {"app": app}) for app in (client, server)]
    assert admitted(closed, places[0], places[1], port) == expected
