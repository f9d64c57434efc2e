"""`guestbook x describe` on manifests alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from lab.cli import main
from tests.support.repository import MESH

MUTUAL_TLS = Path(__file__).parent / "faults/mutual-tls.yaml"


def described(capsys: pytest.CaptureFixture[str], service: str, *files: Path) -> list[str]:
    words = [word for file in (*MESH, *files) for word in ("-f", str(file))]
    assert main(["x", "describe", "svc", service, *words]) == 0
    return capsys.readouterr().out.splitlines()


def warnings(lines: list[str]) -> list[str]:
    return [line for line in lines if line.startswith("WARNING")]


def test_a_conflict_of_mutual_tls_is_a_warning(capsys: pytest.CaptureFixture[str]) -> None:
    (told,) = warnings(described(capsys, "message-service", MUTUAL_TLS))
    assert told.startswith("WARNING: Requests to message-service.default.svc.cluster.local fail: ")
    assert "fail: DestinationRule default/plain sends plain text" in told
    assert f"PeerAuthentication default/strict ({MUTUAL_TLS}:5) takes mutual TLS alone" in told
    assert told.endswith(f"set tls.mode ISTIO_MUTUAL, or leave tls out.  {MUTUAL_TLS}:13")
    assert warnings(described(capsys, "ui", MUTUAL_TLS)) == []
    assert warnings(described(capsys, "message-service")) == []


@pytest.mark.parametrize("gateways", ["[guestbok-gateway]", "[guestbook-ui-gateway, mesh, shop/x]"])
def test_a_gateway_that_is_not_there_is_a_warning(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, gateways: str
) -> None:
    file = tmp_path / "route.yaml"
    file.write_text(ROUTE % gateways)
    told = warnings(described(capsys, "message-service", file))
    missing = "default/guestbok-gateway" if "bok-" in gateways else "shop/x"
    expected = f"WARNING: VirtualService other references non-existent gateway {missing}  {file}:6"
    assert told == [expected]


ROUTE = """\
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: other}
spec:
  hosts: [other.example]
  gateways: %s
  http: [{route: [{destination: {host: message-service}}]}]
"""
