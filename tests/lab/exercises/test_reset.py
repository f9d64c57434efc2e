"""Traces of learners: `exercise clean`, `reset`, and an `install` taken back."""

from __future__ import annotations

import httpx

from tests.support.lab import Lab, behaves, in_pod, picture
from tests.support.wait import wait

MESSAGE = "kept-over-the-reset"


def spoil(lab: Lab) -> None:
    """A lesson stopped in its middle: rules, a client, a mesh that is closed, a bad pod."""
    lab.ok("apply", "-f", "istio/clients/curl.yaml", "-f", "istio/03-fault-abort")
    closed = ("-f", "istio/install/istio.yaml", "-f", "istio/install/egress-registry-only.yaml")
    lab.ok("install", "-y", *closed)
    pod = lab.ready("app=message-service", 2)[0]
    said = in_pod(lab, pod, "curl", "-s", "http://localhost:8080/misbehave")
    assert said == "Next request to /hello/{name} will return a 503\n"
    assert not behaves(lab)


def test_clean_takes_back_what_lessons_leave(lab: Lab) -> None:
    before = picture(lab)
    operators = lab.ok("get", "istiooperators", "-A", "-o", "name")
    spoil(lab)
    assert lab.ok("get", "istiooperators", "-A", "-o", "name") != operators
    assert "every message-service behaves" in lab.ok("exercise", "clean")
    assert behaves(lab)
    assert lab.ok("get", "istiooperators", "-A", "-o", "name") == operators
    assert picture(lab) == before


def test_installed_is_what_the_files_say(lab: Lab) -> None:
    operators = lab.ok("get", "istiooperators", "-A", "-o", "name")
    lab.ok(
        "install", "-f", "istio/install/istio.yaml", "-f", "istio/install/egress-registry-only.yaml"
    )
    lab.ok("install", "-f", "istio/install/istio.yaml")
    assert lab.ok("get", "istiooperators", "-A", "-o", "name") == operators


def test_reset_brings_back_a_new_lab_with_its_messages(lab: Lab) -> None:
    page = lab.url()
    with httpx.Client(base_url=page, trust_env=False, follow_redirects=True) as visitor:
        visitor.post("/greet", data={"name": "Test", "message": MESSAGE})
    before = {name for name in picture(lab) if "/" in name}
    spoil(lab)
    lab.ok("create", "namespace", "mine")
    lab.ok("label", "namespace", "default", "mine=yes")
    lab.ok("scale", "deploy/ui", "--replicas=1")
    lab.ok("delete", "gateway", "--all")
    printed = lab.ok("reset")
    assert "deployment.apps/ui configured" in printed
    for app in ("ui", "message-service", "guestbook-service"):
        lab.ready(f"app={app}", 2)
    assert {name for name in picture(lab) if "/" in name} == before
    assert lab.run("get", "namespace", "mine").status == 1
    labels = lab.json("namespace", "default")["metadata"]["labels"]
    assert labels == {"istio-injection": "enabled"}
    wait(lambda: behaves(lab), "the pods behave", 30)

    def kept() -> bool:
        return MESSAGE in httpx.get(page, trust_env=False).text

    wait(kept, "the page with the message", 30)


def test_a_field_without_effect_is_said_once(lab: Lab) -> None:
    client = ("-f", "istio/clients/curl.yaml")
    lab.run("apply", *client)
    lab.ok("delete", *client)
    again = lab.run("apply", *client)
    assert (again.status, again.err) == (0, "")
    lab.ok("delete", *client)


def test_a_new_pod_does_not_have_the_events_of_an_old_one(lab: Lab) -> None:
    client = ("-f", "istio/clients/curl.yaml")
    for _ in range(2):
        lab.ok("apply", *client)
        lab.ok("wait", "--for=condition=Ready", "pod/curl", "--timeout=60s")
        assert "Killing" not in lab.ok("describe", "pod", "curl")
        lab.ok("delete", *client)
