"""The lab's authority: what openssl says of its certificates, renewal, and what is left on disk."""

from __future__ import annotations

import json
import stat
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from lab.istiod import authority

NOW = datetime.now(UTC)
ACCOUNTS = [("default", "ui-sa"), ("istio-system", "istio-ingressgateway-service-account")]


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    return tmp_path / "authority", tmp_path / "certificates"


def chain_of(file: Path) -> str:
    secret = json.loads(file.read_text())["resources"][0]
    assert secret["name"] == "default"
    return str(secret["tls_certificate"]["certificate_chain"]["inline_string"])


def openssl(*arguments: str, stdin: str = "") -> str:
    result = subprocess.run(
        ["openssl", *arguments], input=stdin, capture_output=True, text=True, timeout=30
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_a_leaf_is_what_the_codelab_shows(folders: tuple[Path, Path], tmp_path: Path) -> None:
    root = authority.load(folders[0], NOW)
    authority.issue(root, folders[1], ACCOUNTS, NOW)
    chain = chain_of(folders[1] / "default" / "ui-sa.json")
    text = openssl(
        "x509", "-noout", "-issuer", "-subject", "-ext", "subjectAltName,extendedKeyUsage",
        "-nameopt", "RFC2253", stdin=chain,
    )  # fmt: skip
    assert "issuer=O=cluster.local" in text
    assert "subject=\n" in text
    assert "X509v3 Subject Alternative Name: critical" in text
    assert "URI:spiffe://cluster.local/ns/default/sa/ui-sa" in text
    assert text.count("URI:") == 1
    assert "TLS Web Server Authentication, TLS Web Client Authentication" in text
    (tmp_path / "leaf.pem").write_text(chain)
    anchor = json.loads((folders[1] / "ROOTCA.json").read_text())["resources"][0]
    (tmp_path / "root.pem").write_text(anchor["validation_context"]["trusted_ca"]["inline_string"])
    for purpose in ("sslserver", "sslclient"):
        openssl(
            "verify", "-x509_strict", "-purpose", purpose, "-CAfile", str(tmp_path / "root.pem"),
            str(tmp_path / "leaf.pem"),
        )  # fmt: skip


def test_a_leaf_lives_a_day_and_is_renewed_at_half_of_it(folders: tuple[Path, Path]) -> None:
    root = authority.load(folders[0], NOW)
    file = folders[1] / "default" / "ui-sa.json"
    due = authority.issue(root, folders[1], ACCOUNTS, NOW)
    first = file.read_text()
    assert NOW + timedelta(hours=11) < due <= NOW + timedelta(hours=12)
    authority.issue(root, folders[1], ACCOUNTS, due - timedelta(seconds=1))
    assert file.read_text() == first
    authority.issue(root, folders[1], ACCOUNTS, due + timedelta(seconds=1))
    assert file.read_text() != first


def test_another_trust_domain_is_another_identity(folders: tuple[Path, Path]) -> None:
    authority.issue(authority.load(folders[0], NOW), folders[1], ACCOUNTS, NOW)
    authority.issue(authority.load(folders[0], NOW, "my.domain"), folders[1], ACCOUNTS, NOW)
    chain = chain_of(folders[1] / "default" / "ui-sa.json")
    text = openssl("x509", "-noout", "-ext", "subjectAltName", stdin=chain)
    assert "URI:spiffe://my.domain/ns/default/sa/ui-sa" in text


def test_the_root_stays_and_a_broken_one_is_replaced(folders: tuple[Path, Path]) -> None:
    first = authority.load(folders[0], NOW)
    assert authority.load(folders[0], NOW).certificate == first.certificate
    authority.issue(first, folders[1], ACCOUNTS, NOW)
    before = chain_of(folders[1] / "default" / "ui-sa.json")
    (folders[0] / "root.pem").write_text("half a")
    second = authority.load(folders[0], NOW)
    assert second.certificate != first.certificate
    authority.issue(second, folders[1], ACCOUNTS, NOW)
    assert chain_of(folders[1] / "default" / "ui-sa.json") != before


def test_only_the_owner_may_read_and_nothing_stale_is_left(folders: tuple[Path, Path]) -> None:
    root = authority.load(folders[0], NOW)
    authority.issue(root, folders[1], ACCOUNTS, NOW)
    authority.issue(root, folders[1], ACCOUNTS[:1], NOW)
    files = [path for folder in folders for path in folder.rglob("*") if path.is_file()]
    assert sorted(path.name for path in files) == ["ROOTCA.json", "root.pem", "ui-sa.json"]
    assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o600}
    assert stat.S_IMODE(folders[0].stat().st_mode) == 0o700
