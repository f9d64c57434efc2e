"""Manifests of any application are read where nothing runs: for `guestbook route -f`."""

from __future__ import annotations

from pathlib import Path

import pytest

from lab.cli import main
from lab.manifests.load import parse
from lab.manifests.read import ManifestError

SHOP = """\
apiVersion: apps/v1
kind: Deployment
metadata: {name: shop}
spec:
  selector: {matchLabels: {app: shop}}
  template:
    metadata: {labels: {app: shop, sidecar.istio.io/inject: "true"}}
    spec:
      dnsPolicy: ClusterFirst
      initContainers: [{name: wait, image: busybox, command: [sleep, "1"]}]
      containers:
      - name: shop
        image: example.com/shop:1
        ports: [{name: web, containerPort: 8080}]
        readinessProbe: {grpc: {port: 8080}}
        volumeMounts: [{name: files, mountPath: /files}]
      volumes: [{name: files, hostPath: {path: /}}]
---
apiVersion: v1
kind: Service
metadata: {name: shop}
spec: {selector: {app: shop}, ports: [{port: 80, name: http, targetPort: web}]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: shop}
"""


def test_a_route_to_pods_that_the_lab_could_not_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "shop.yaml"
    file.write_text(SHOP)
    assert main(["route", "--from", "shop", "GET", "http://shop/", "-f", str(file)]) == 0
    assert "100% to outbound|80||shop.default.svc.cluster.local" in capsys.readouterr().out


def test_a_lab_that_runs_them_refuses_them() -> None:
    with pytest.raises(ManifestError, match="init containers are not played"):
        parse([("x", SHOP)])


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (SHOP.replace("targetPort: web", "targetPort: {}"), "x:22: Service shop: spec.ports"),
        (SHOP.replace("name: web", "name: [a]"), "x:14: Deployment shop: spec.template.spec"),
        (
            "apiVersion: v1\nkind: Pod\nmetadata: {name: a}\n"
            "spec: {containers: [{name: a, image: a}], initContainers: }\n",
            "x:4: Pod a: spec.initContainers: has no value",
        ),
        ("apiVersion: networking.k8s.io/v1\nkind: Ingress\nmetadata: {name: a}\n", "no Ingress"),
    ],
)
def test_what_a_route_depends_on_is_still_checked(text: str, reason: str) -> None:
    with pytest.raises(ManifestError, match=reason):
        parse([("x", text)], running=False)
