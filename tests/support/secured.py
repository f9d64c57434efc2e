"""A test mesh with certificates: what the tests of the security resources share."""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import httpx

from lab.istiod import authority
from lab.model import Pod, ServicePort
from tests.support import harness
from tests.support.wait import wait

TCP_PORT = 7000
"""The port of `store`, which its clients' sidecars listen on."""


@contextmanager
def mesh(folder: Path) -> Iterator[harness.Mesh]:
    """`ui` and `stranger` with sidecars, `plain` without; `message` (HTTP) and `store` (TCP)."""
    with harness.mesh(folder / "mesh") as made:
        for name in ("ui", "stranger", "message", "store"):
            made.add(name, proxy="sidecar")
        made.add("plain", proxy="none")
        made.service("message")
        made.service("plain")
        port = ServicePort("tcp", TCP_PORT, harness.APP_PORT, "TCP")
        made.service("store", ports=(port,))
        accounts = [("default", running.pod.service_account) for running in made.pods.values()]
        root = authority.load(folder / "authority", datetime.now(UTC))
        authority.issue(root, folder / "certificates", accounts, datetime.now(UTC))
        made.certificates = str(folder / "certificates")
        made.start()
        yield made


def apply(mesh: harness.Mesh, *manifests: str) -> None:
    """Makes the manifests the whole configuration, and waits until no old connection is left."""
    mesh.apply("\n---\n".join(manifests))
    wait(lambda: not any(_draining(running) for running in mesh.pods.values()))


def _draining(running: harness.Running) -> int:
    if running.process is None:
        return 0
    return sum(running.admin.stats("listener_manager.total_.*_draining").values())


def get(
    mesh: harness.Mesh,
    client: str = "ui",
    path: str = "/",
    *,
    host: str = "message",
    method: str = "GET",
    headers: Mapping[str, str] | None = None,
) -> httpx.Response:
    """A request of a pod's application to a Service, on a connection of its own."""
    return mesh.request(client, f"http://{host}{path}", method=method, headers=headers)


def direct(pod: Pod, path: str = "/", headers: Mapping[str, str] | None = None) -> httpx.Response:
    """A request in plain text from outside the mesh to a pod's address."""
    with httpx.Client(timeout=10) as client:
        return client.get(f"http://{pod.address}:{harness.APP_PORT}{path}", headers=headers)


def talk(mesh: harness.Mesh, client: str, service: str) -> bytes:
    """Returns the answer of a TCP Service to an HTTP request of a pod, or nothing."""
    address = mesh.pods[client].pod.inside_address
    with socket.create_connection((address, TCP_PORT), timeout=10) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        received = b""
        try:
            while chunk := connection.recv(4096):
                received += chunk
        except ConnectionError:
            return received
    return received


def openssl_leaf(pod: Pod, *, alpn: str = "istio") -> str:
    """Returns a pod's certificate as `openssl s_client | openssl x509` shows it; "" without one."""
    asked = subprocess.run(
        ["openssl", "s_client", "-showcerts", "-alpn", alpn, "-connect",
         f"{pod.address}:{harness.APP_PORT}"],
        input="", capture_output=True, text=True, timeout=20,
    )  # fmt: skip
    if "BEGIN CERTIFICATE" not in asked.stdout:
        return ""
    return subprocess.run(
        ["openssl", "x509", "-noout", "-issuer", "-subject", "-ext",
         "subjectAltName,extendedKeyUsage", "-nameopt", "RFC2253"],
        input=asked.stdout, capture_output=True, text=True, check=True, timeout=20,
    ).stdout  # fmt: skip
