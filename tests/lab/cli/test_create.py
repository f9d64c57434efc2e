"""create, against a running lab: files, Secrets, ConfigMaps, service accounts, Deployments."""

from __future__ import annotations

import base64
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from lab.cli import main
from tests.support.certificate import certificate
from tests.support.lab import Lab
from tests.support.wait import wait

HOST = "httpbin.example.com"
SITE = """
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {{name: secure}}
spec:
  selector: {{istio: ingressgateway}}
  servers:
  - port: {{number: 443, name: https, protocol: HTTPS}}
    tls: {{mode: {mode}, credentialName: httpbin-credential}}
    hosts: [httpbin.example.com]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {{name: secure}}
spec:
  hosts: [httpbin.example.com]
  gateways: [secure]
  http:
  - route: [{{destination: {{host: message-service}}}}]
"""


@pytest.fixture
def secure(lab: Lab) -> Iterator[list[str]]:
    """The words of a request through the gateway, by HTTPS; it takes what it needs away."""
    port = json.loads(lab.ok("status", "-o", "json"))["ingressHttps"].rpartition(":")[2]
    resolve = f"{HOST}:{port}:127.0.0.1"
    yield ["curl", "-sS", "--resolve", resolve, f"https://{HOST}:{port}/hello/me"]
    lab.ok("delete", "gateway,vs", "secure", "--ignore-not-found")
    lab.ok("delete", "secret", "httpbin-credential", "-n", "istio-system", "--ignore-not-found")


def asked(words: list[str], *more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*words, *more], capture_output=True, text=True, check=False)


def test_a_gateway_serves_a_tls_secret(lab: Lab, secure: list[str], tmp_path: Path) -> None:
    """The lines of Istio's task "Secure Gateways"."""
    chain, key = certificate(tmp_path, "server", HOST)
    create = ("create", "-n", "istio-system", "secret", "tls", "httpbin-credential")
    words = (*create, f"--key={key}", f"--cert={chain}")
    assert lab.ok(*words) == "secret/httpbin-credential created\n"
    lab.apply(SITE.format(mode="SIMPLE"))
    wait(lambda: "Hello me" in asked(secure, "--cacert", str(chain)).stdout, "HTTPS", 10)
    again = lab.run(*words)
    assert (again.status, again.err) == (
        1,
        'Error: failed to create secret secrets "httpbin-credential" already exists\n',
    )
    body = key.read_text().splitlines()[1]
    kept = base64.b64encode(key.read_bytes()).decode()[:40]
    assert kept in lab.ok("get", "secret", "httpbin-credential", "-n", "istio-system", "-o", "yaml")
    texts = {
        path: path.read_text(errors="replace") for path in lab.folder.rglob("*") if path.is_file()
    }
    holding = [path for path, text in texts.items() if body in text or kept in text]
    assert {path.relative_to(lab.folder).parts[0] for path in holding} == {"pods", "resources"}
    assert [path for path in (*holding, lab.folder) if path.stat().st_mode & 0o077] == []
    assert body not in lab.log.read_text()


def test_a_gateway_asks_for_certificates_of_clients(
    lab: Lab, secure: list[str], tmp_path: Path
) -> None:
    chain, key = certificate(tmp_path, "server", HOST)
    authority, own = certificate(tmp_path, "client", "client.example")
    files = {"tls.key": key, "tls.crt": chain, "ca.crt": authority}
    sources = [f"--from-file={name}={path}" for name, path in files.items()]
    create = ("create", "secret", "generic", "httpbin-credential", "-n", "istio-system")
    lab.ok(*create, *sources)
    lab.apply(SITE.format(mode="MUTUAL"))
    known = ("--cacert", str(chain))
    shown = ("--cert", str(authority), "--key", str(own))
    wait(lambda: "Hello me" in asked(secure, *known, *shown).stdout, "mutual TLS", 10)
    assert asked(secure, *known).returncode != 0


def test_data_of_literals_files_and_folders(lab: Lab, tmp_path: Path) -> None:
    folder = tmp_path / "pages"
    folder.mkdir()
    (folder / "index.html").write_text("<p>\n")
    (folder / "logo.png").write_bytes(b"\x89PNG")
    (folder / "below").mkdir()
    made = lab.ok(
        *("create", "configmap", "pages", f"--from-file={folder}"),
        *(f"--from-file=start={folder}/index.html", "--from-literal=a=b=c", "--from-literal=y=y"),
    )
    try:
        assert made == "configmap/pages created\n"
        found = lab.json("configmap", "pages")
        assert found["data"] == {"index.html": "<p>\n", "start": "<p>\n", "a": "b=c", "y": "y"}
        assert base64.b64decode(found["binaryData"]["logo.png"]) == b"\x89PNG"
    finally:
        lab.ok("delete", "configmap", "pages")


def test_data_of_a_file_of_variables(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Without a lab: --dry-run=client asks nobody."""
    file = tmp_path / "shop.env"
    file.write_text("\ufeff# colours\nA=1\n\n  B=two words \r\nHOME\n", encoding="utf-8")
    words = f"create cm shop -n n --from-env-file={file} --dry-run=client -o yaml"
    assert main(["--state", str(tmp_path / "none"), *words.split()]) == 0
    made = yaml.safe_load(capsys.readouterr().out)
    assert made["metadata"] == {"name": "shop", "namespace": "n"}
    assert made["data"] == {"A": "1", "B": "two words ", "HOME": str(Path.home())}
    assert main(["create", "secret", "generic", "s", "--from-literal=k=v", "--dry-run=client"]) == 0
    assert capsys.readouterr().out == "secret/s created (dry run)\n"


def test_a_dry_run_is_applied_over_what_is_there(lab: Lab) -> None:
    words = ("create", "secret", "generic", "login", "--from-literal")
    lab.ok(*words, "password=one")
    try:
        text = lab.ok(*words, "password=two", "--dry-run=client", "-o", "yaml")
        assert lab.apply(text) == "secret/login configured\n"
        data = lab.json("secret", "login")["data"]
        assert base64.b64decode(data["password"]) == b"two"
        refused = lab.run(*words, "password=two", "--dry-run=server")
        assert 'secrets "login" already exists' in refused.err
    finally:
        lab.ok("delete", "secret", "login")


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ("secret tls s --cert=a", "key and cert must be specified"),
        (
            "secret tls s --cert=none --key=none",
            "Cannot read file none, open none: no such file or directory",
        ),
        ("secret tls s --cert={one} --key={two_key}", "tls: private key does not match public key"),
        (
            "secret tls s --cert={one} --key={empty}",
            "tls: failed to find any PEM data in key input",
        ),
        (
            "secret tls s --cert={two_key} --key={one}",
            "tls: failed to find certificate PEM data in certificate input, but did find a private "
            "key; PEM inputs may have been switched",
        ),
        (
            "secret tls s --cert={one} --key={one}",
            "tls: found a certificate rather than a key in the PEM for the private key",
        ),
        ("secret generic s --from-env-file=/", "env secret file cannot be a directory"),
        ("cm c --from-literal=a", "invalid literal source a, expected key=value"),
        ("cm c --from-file=a=b=c", "key names or file paths cannot contain '='"),
        ("cm c --from-file=a=", "file path for key name a missing"),
        ("cm c --from-file==a", "key name for file path a missing"),
        ("cm c --from-file=", "a path of --from-file or --from-env-file is empty"),
        ("cm c --from-file=/dev/null,", "a path of --from-file or --from-env-file is empty"),
        ("cm c --from-file=none", "error reading none: no such file or directory"),
        (
            "cm c --from-literal=a=1 --from-literal=a=2",
            "cannot add key a, another key by that name already exists",
        ),
        (
            "cm c --from-literal=a=1 --from-env-file=x",
            "from-env-file cannot be combined with from-file or from-literal",
        ),
        (
            "cm c --from-literal=a/b=1",
            '"a/b" is not a valid key name for a ConfigMap: a valid config key must consist of '
            "alphanumeric characters, '-', '_' or '.'",
        ),
    ],
)
def test_bad_data_is_told_as_kubectl_does(
    words: str, reason: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty").touch()
    files = {"empty": tmp_path / "empty", "one": certificate(tmp_path, "one")[0]}
    files["two_key"] = certificate(tmp_path, "two")[1]
    assert main(["create", *words.format(**files).split(), "--dry-run=client"]) == 1
    assert capsys.readouterr().err == f"Error: {reason}\n"


def test_files_create_what_is_not_there(lab: Lab) -> None:
    one = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: one}\n"
    other = "---\n" + one.replace("one", "other")
    try:
        assert lab.ok("create", "-f", "-", stdin=one) == "configmap/one created\n"
        again = lab.run("create", "-f", "-", stdin=one + other)
        assert (again.status, again.out) == (1, "configmap/other created\n")
        assert again.err == (
            'Error from server (AlreadyExists): error when creating "STDIN": '
            'configmaps "one" already exists\n'
        )
    finally:
        lab.ok("delete", "configmap", "one", "other")
    namespace = lab.run("create", "namespace", "default")
    assert namespace.err == (
        'Error from server (AlreadyExists): namespaces "default" already exists\n'
    )


def test_a_deployment_with_a_service_account(lab: Lab) -> None:
    words = ("create", "deployment", "asker", "--image=curlimages/curl:8.1", "--replicas=2")
    lab.ok("create", "namespace", "created")
    try:
        made = lab.ok("create", "sa", "asker", "-n", "created")
        assert made == "serviceaccount/asker created\n"
        made = lab.ok(*words, "--port=80", "-n", "created", "--", "sleep", "60")
        assert made == "deployment.apps/asker created\n"
        pods = lab.ready("app=asker", 2, "created")
        (container,) = pods[0]["spec"]["containers"]
        assert container == {
            "name": "curl",
            "image": "curlimages/curl:8.1",
            "command": ["sleep", "60"],
            "ports": [{"containerPort": 80}],
        }
        again = lab.run(*words, "-n", "created")
        assert again.err == (
            'Error: failed to create deployment: deployments.apps "asker" already exists\n'
        )
    finally:
        lab.ok("delete", "namespace", "created")


@pytest.mark.parametrize("words", ["service clusterip s", "role r", "secret docker-registry s"])
def test_other_kinds_are_refused_with_what_helps(
    words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["create", *words.split()]) == 1
    assert " is not in the lab: " in capsys.readouterr().err
