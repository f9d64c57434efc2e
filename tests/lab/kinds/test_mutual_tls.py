"""Mutual TLS between real Envoys: who gets in, and what a client sees when it doesn't."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from lab.explain import request
from tests.support import harness
from tests.support.secured import apply, direct, get, mesh, openssl_leaf, talk
from tests.support.wait import wait

PEER = """
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {{name: {name}, namespace: {namespace}}}
spec: {spec}
"""


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[harness.Mesh]:
    with mesh(tmp_path_factory.mktemp("mesh")) as made:
        yield made


@pytest.fixture(autouse=True)
def fresh(secured: harness.Mesh) -> None:
    secured.calm()


def policy(spec: str, name: str = "default", namespace: str = "default") -> str:
    return PEER.format(name=name, namespace=namespace, spec=spec)


def refused(pod_name: str, secured: harness.Mesh) -> bool:
    """Whether a plain-text client is cut off, as curl reports with 56."""
    try:
        direct(secured.pods[pod_name].pod)
    except httpx.ReadError as error:
        return "reset" in str(error).lower()
    return False


def test_permissive_by_default(secured: harness.Mesh) -> None:
    """Sidecars use mutual TLS by themselves; a client without one is served in plain text."""
    apply(secured)
    headers = get(secured).json()["headers"]
    xfcc = headers["x-forwarded-client-cert"]
    assert "By=spiffe://cluster.local/ns/default/sa/message-sa;" in xfcc
    assert 'Subject="";URI=spiffe://cluster.local/ns/default/sa/ui-sa' in xfcc
    assert "x-forwarded-client-cert" not in direct(secured.pods["message"].pod).json()["headers"]
    assert b"200 OK" in talk(secured, "ui", "store")


def test_a_forged_client_certificate_header_is_dropped(secured: harness.Mesh) -> None:
    apply(secured)
    forged = {"x-forwarded-client-cert": "URI=spiffe://cluster.local/ns/default/sa/admin"}
    for answer in (
        get(secured, headers=forged),
        direct(secured.pods["message"].pod, headers=forged),
    ):
        assert "sa/admin" not in answer.text


def test_a_pod_without_sidecar_is_called_in_plain_text(secured: harness.Mesh) -> None:
    apply(secured)
    answer = get(secured, host="plain")
    assert answer.status_code == 200
    assert "x-forwarded-client-cert" not in answer.json()["headers"]


def test_the_certificate_is_the_service_accounts(secured: harness.Mesh) -> None:
    apply(secured)
    for name in ("message", "ui", "store"):
        leaf = openssl_leaf(secured.pods[name].pod)
        assert f"URI:spiffe://cluster.local/ns/default/sa/{name}-sa" in leaf
        assert "issuer=O=cluster.local" in leaf
        assert "TLS Web Server Authentication, TLS Web Client Authentication" in leaf


def test_strict_cuts_off_plain_text_and_nobody_else(secured: harness.Mesh) -> None:
    apply(secured, policy("{mtls: {mode: STRICT}}"))
    assert refused("message", secured)
    assert refused("store", secured)
    assert get(secured).status_code == 200
    assert b"200 OK" in talk(secured, "ui", "store")
    wait(lambda: "NR filter_chain_not_found" in secured.pods["message"].log)


def test_disable_has_no_tls_at_all(secured: harness.Mesh) -> None:
    apply(secured, policy("{mtls: {mode: DISABLE}}"))
    pod = secured.pods["message"].pod
    assert not openssl_leaf(pod)
    assert direct(pod).status_code == 200
    answer = get(secured)
    assert answer.status_code == 200
    assert "x-forwarded-client-cert" not in answer.json()["headers"]


def test_a_workloads_policy_beats_the_namespaces_and_the_meshs(secured: harness.Mesh) -> None:
    apply(
        secured,
        policy("{mtls: {mode: STRICT}}", namespace="istio-system")
        + "---"
        + policy("{mtls: {mode: UNSET}}")
        + "---"
        + policy("{selector: {matchLabels: {app: store}}, mtls: {mode: PERMISSIVE}}", "store"),
    )
    assert refused("message", secured)
    assert direct(secured.pods["store"].pod).status_code == 200


def test_a_port_may_differ_from_its_workload(secured: harness.Mesh) -> None:
    selected = "selector: {matchLabels: {app: message}}, mtls: {mode: STRICT}"
    apply(secured, policy(f"{{{selected}, portLevelMtls: {{9999: {{mode: PERMISSIVE}}}}}}"))
    assert refused("message", secured)
    apply(secured, policy(f'{{{selected}, portLevelMtls: {{"8080": {{mode: PERMISSIVE}}}}}}'))
    assert not refused("message", secured)


def test_a_client_that_insists_on_plain_text_gets_503(secured: harness.Mesh) -> None:
    apply(
        secured,
        policy("{mtls: {mode: STRICT}}")
        + """---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: message, namespace: default}
spec: {host: message, trafficPolicy: {tls: {mode: DISABLE}}}
""",
    )
    assert get(secured).status_code == 503
    assert "connection termination" in get(secured).text


def test_a_server_with_another_identity_is_not_trusted(secured: harness.Mesh) -> None:
    apply(
        secured,
        """
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: message, namespace: default}
spec:
  host: message
  trafficPolicy:
    tls:
      mode: ISTIO_MUTUAL
      subjectAltNames: [spiffe://cluster.local/ns/default/sa/somebody-else]
""",
    )
    assert get(secured).status_code == 503


def test_mutual_tls_to_a_pod_without_sidecar_fails(secured: harness.Mesh) -> None:
    apply(
        secured,
        """
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: plain, namespace: default}
spec: {host: plain, trafficPolicy: {tls: {mode: ISTIO_MUTUAL}}}
""",
    )
    assert get(secured, host="plain").status_code == 503


EGRESS = """
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: egress}
spec:
  selector: {istio: ingressgateway}
  servers:
  - {port: {number: 80, name: https, protocol: HTTPS}, hosts: ["*"], tls: {mode: ISTIO_MUTUAL}}
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: egress}
spec:
  host: istio-ingressgateway.istio-system.svc.cluster.local
  trafficPolicy: {tls: {mode: ISTIO_MUTUAL, sni: message.default.svc.cluster.local}}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: message}
spec:
  hosts: [message]
  gateways: [mesh, egress]
  http:
  - match: [{gateways: [mesh]}]
    route: [{destination: {host: istio-ingressgateway.istio-system.svc.cluster.local}}]
  - route: [{destination: {host: message}}]
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: egress, namespace: istio-system}
spec:
  action: DENY
  rules: [{from: [{source: {principals: [cluster.local/ns/default/sa/stranger-sa]}}]}]
"""


def test_a_gateway_takes_mutual_tls_of_the_mesh(tmp_path: Path) -> None:
    """It knows the identity of the client, and closes a connection without one."""
    with harness.mesh(tmp_path) as made:
        for name in ("ui", "stranger", "message"):
            made.add(name, proxy="sidecar")
        made.service("message")
        pod = made.gateway().pod
        made.certify()
        made.start()
        made.apply(EGRESS)
        host = "message.default.svc.cluster.local"
        wait(lambda: get(made, host=host).status_code == 200)
        seen = get(made, host=host).json()["headers"]["x-forwarded-client-cert"]
        assert "URI=spiffe://cluster.local/ns/istio-system/sa/istio-ingressgateway-sa" in seen
        assert get(made, "stranger", host=host).status_code == 403
        for client, denied in (("ui", False), ("stranger", True)):
            told = request.explain(made.snapshot(), made.pods[client].pod, "GET", f"http://{host}/")
            steps = [step for target in told.targets for step in target.steps]
            assert any(step.says == "mutual TLS to the gateway" for step in steps)
            assert any(step.says.startswith("403") for step in steps) is denied
        with pytest.raises(httpx.TransportError):
            direct(pod)
