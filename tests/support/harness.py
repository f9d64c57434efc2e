"""A small mesh for tests: fake pods that answer HTTP, and real Envoys beside those that ask.

A pod's server reports what it received and can be told to misbehave. Addresses are loopback ones
of a slice of their own, so that several meshes run side by side.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Literal

import httpx

from lab import names
from lab.envoy import translate
from lab.envoy.adapt import adapt
from lab.istiod import authority, proxy_files
from lab.istiod import process as envoy
from lab.istiod.push import push
from lab.manifests import load
from lab.model import Pod, PortProtocol, Service, ServicePort, Snapshot
from lab.resources.resource import Resource, Source
from tests.support.wait import wait

APP_PORT = 8080
NOWHERE = Source("test", 1)


@dataclass
class Received:
    """One request as a fake pod saw it."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes


class Server(ThreadingHTTPServer):
    """The application of a fake pod: it echoes, and misbehaves when told to."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, name: str, version: str, address: tuple[str, int]) -> None:
        self.name = name
        self.version = version
        self.status = 200
        self.delay = 0.0
        self.reset = False
        """Close the connection instead of answering."""
        self.received: list[Received] = []
        super().__init__(address, Handler)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is no news."""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1
    disable_nagle_algorithm = True
    server: Server

    def answer(self) -> None:
        size = int(self.headers.get("content-length") or 0)
        body = self.rfile.read(size)
        headers = {
            name.lower(): ",".join(self.headers.get_all(name) or ()) for name in self.headers
        }
        path = self.requestline.split()[1]  # self.path has double slashes collapsed
        received = Received(self.command, path, headers, body)
        self.server.received.append(received)
        if self.server.delay:
            time.sleep(self.server.delay)
        if self.server.reset:
            self.close_connection = True
            return
        text = json.dumps(
            {
                "pod": self.server.name,
                "version": self.server.version,
                "method": self.command,
                "path": path,
                "headers": headers,
            }
        ).encode()
        self.send_response(self.server.status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(text)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(text)
        self.wfile.flush()

    do_GET = do_POST = do_PUT = do_DELETE = do_HEAD = do_OPTIONS = do_PATCH = answer  # noqa: N815

    def log_message(self, format: str, *args: Any) -> None:
        """Tests read `received`."""


@dataclass(frozen=True)
class Admin:
    """A proxy's admin interface."""

    url: str

    def get(self, path: str, **params: str) -> str:
        """The text of an admin page."""
        answer = httpx.get(f"{self.url}{path}", params=params, timeout=5.0)
        answer.raise_for_status()
        return answer.text

    def ready(self) -> bool:
        """Whether the proxy has its first configuration and serves."""
        try:
            return httpx.get(f"{self.url}/ready", timeout=5.0).status_code == 200
        except httpx.HTTPError:
            return False

    def stats(self, pattern: str) -> dict[str, int]:
        """Counters and gauges whose name matches a regular expression."""
        lines = self.get("/stats", filter=pattern).splitlines()
        pairs = (line.rsplit(": ", 1) for line in lines if ": " in line)
        return {name: int(value) for name, value in pairs if value.isdecimal()}


@dataclass
class Running:
    """A pod of the test mesh with its server and, if it has one, its proxy."""

    pod: Pod
    server: Server | None
    folder: Path
    process: subprocess.Popen[bytes] | None = None

    @property
    def log(self) -> str:
        """Output of the proxy: its access log and its errors."""
        return (self.folder / "envoy.log").read_text()

    @property
    def admin(self) -> Admin:
        return Admin(f"http://{self.pod.inside_address}:{names.ADMIN_PORT}")


@dataclass
class Mesh:
    folder: Path
    slice: int
    pods: dict[str, Running] = field(default_factory=dict)
    services: list[Service] = field(default_factory=list)
    config: dict[str, tuple[Resource, ...]] = field(default_factory=dict)
    mesh_config: dict[str, Any] = field(default_factory=lambda: {"accessLogFile": "/dev/stdout"})
    certificates: str = ""
    servers: list[Server] = field(default_factory=list)

    def add(
        self,
        name: str,
        *,
        app: str | None = None,
        version: str = "1.0",
        namespace: str = "default",
        proxy: Literal["none", "sidecar", "gateway"] = "none",
        server: bool = True,
        labels: Mapping[str, str] | None = None,
        ports: Mapping[str, int] | None = None,
        published: Mapping[int, tuple[tuple[str, int], ...]] | None = None,
        account: str | None = None,
    ) -> Running:
        """A pod; its server listens where its application would."""
        index = len(self.pods) + 1
        app = app or name
        pod = Pod(
            namespace=namespace,
            name=name,
            labels={"app": app, "version": version, **(labels or {})},
            annotations={},
            service_account=account or f"{app}-sa",
            address=f"127.77.{self.slice}.{index}",
            inside_address=f"127.78.{self.slice}.{index}",
            ports=ports if ports is not None else {"http": APP_PORT},
            ready=True,
            proxy=proxy,
            published=published or {},
        )
        bound: Server | None = None
        if server:
            place = pod.address if proxy == "none" else pod.inside_address
            bound = self.listen(Server(name, version, (place, APP_PORT)))
        running = Running(pod, bound, self.folder / name)
        self.pods[name] = running
        return running

    def listen(self, server: Server) -> Server:
        """Lets a server answer until the mesh stops."""
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        self.servers.append(server)
        return server

    def service(
        self,
        name: str,
        *,
        namespace: str = "default",
        protocol: PortProtocol = "HTTP",
        ports: tuple[ServicePort, ...] | None = None,
        headless: bool = False,
        selector: Mapping[str, str] | None = None,
    ) -> None:
        """A Service on port 80 for the pods whose `app` is its name."""
        self.services.append(
            Service(
                namespace=namespace,
                name=name,
                ports=ports or (ServicePort("http", 80, APP_PORT, protocol),),
                selector=selector or {"app": name},
                cluster_ip=None if headless else f"127.79.{self.slice}.{len(self.services) + 1}",
                source=NOWHERE,
            )
        )

    def gateway(self, ports: tuple[ServicePort, ...] | None = None) -> Running:
        """The ingress gateway, and its Service."""
        app, namespace = "istio-ingressgateway", "istio-system"
        self.service(app, namespace=namespace, ports=ports)
        return self.add(
            "gateway",
            app=app,
            namespace=namespace,
            labels={"istio": "ingressgateway"},
            proxy="gateway",
            server=False,
        )

    def certify(self) -> None:
        """Certificates for all pods added so far: from now on proxies speak mutual TLS."""
        now = datetime.now(UTC)
        folder = self.folder / "certificates"
        accounts = {(r.pod.namespace, r.pod.service_account) for r in self.pods.values()}
        root = authority.load(self.folder / "authority", now)
        authority.issue(root, folder, sorted(accounts), now)
        self.certificates = str(folder)

    def snapshot(self) -> Snapshot:
        return Snapshot(
            services=tuple(self.services),
            pods=tuple(running.pod for running in self.pods.values()),
            config=self.config,
            mesh=self.mesh_config,
            certificates=self.certificates,
        )

    def start(self, *only: str) -> None:
        """Starts the proxies (all, or those named) and waits until they serve."""
        chosen = [r for r in self.pods.values() if r.pod.proxy != "none" and not r.process]
        for running in chosen:
            if only and running.pod.name not in only:
                continue
            config = adapt(translate.proxy_config(self.snapshot(), running.pod), running.pod)
            proxy_files.prepare(running.folder, running.pod, config)
            log = (running.folder / "envoy.log").open("ab")
            running.process = subprocess.Popen(
                envoy.command(running.folder),
                cwd=running.folder,
                env={**os.environ, **envoy.environment(running.pod, {})},
                stdout=log,
                stderr=log,
            )
            log.close()
        for running in chosen:
            if running.process:
                wait(lambda running=running: self._serves(running))  # type: ignore[misc]

    def _serves(self, running: Running) -> bool:
        if running.process is not None and running.process.poll() is not None:
            raise AssertionError(f"the proxy of {running.pod.name} ended:\n{running.log}")
        return running.admin.ready()

    def apply(self, text: str = "") -> None:
        """Makes `text` the whole Istio configuration and pushes it to every proxy."""
        self.config = resources(text)
        self.push()

    def push(self) -> None:
        snapshot = self.snapshot()
        for running in self.pods.values():
            if running.process is not None:
                config = adapt(translate.proxy_config(snapshot, running.pod), running.pod)
                push(running.folder, config)

    def set_ready(self, name: str, ready: bool) -> None:
        running = self.pods[name]
        running.pod = replace(running.pod, ready=ready)
        self.push()

    def calm(self) -> None:
        """Every server behaves again and has seen nothing."""
        for running in self.pods.values():
            if running.server is not None:
                running.server.status = 200
                running.server.delay = 0.0
                running.server.reset = False
                running.server.received.clear()

    def request(
        self,
        client: str,
        url: str,
        *,
        method: str = "GET",
        headers: Mapping[str, str] | None = None,
        content: bytes | None = None,
        verify: bool = False,
    ) -> httpx.Response:
        """A request that a pod's application sends, through its sidecar."""
        pod = self.pods[client].pod
        proxy = f"http://{pod.inside_address}:{names.OUTBOUND_PORT}"
        with httpx.Client(proxy=proxy, verify=verify, timeout=20) as session:
            return session.request(method, url, headers=headers, content=content)

    def stop(self) -> None:
        for running in self.pods.values():
            if running.process is not None:
                running.process.kill()
                running.process.wait()
        for server in self.servers:
            server.shutdown()
            server.server_close()


def resources(text: str) -> dict[str, tuple[Resource, ...]]:
    """Manifests by kind, checked as `apply` checks them; the first is the oldest."""
    found: dict[str, list[Resource]] = {}
    for order, resource in enumerate(load.parse([("test.yaml", text)]).resources):
        found.setdefault(resource.kind, []).append(replace(resource, order=order))
    return {kind: tuple(items) for kind, items in found.items()}


@contextmanager
def mesh(folder: Path) -> Iterator[Mesh]:
    """An empty mesh in a free slice of the loopback addresses."""
    with ExitStack() as stack:
        made = Mesh(folder, stack.enter_context(free_slice()))
        stack.callback(made.stop)
        yield made


@contextmanager
def free_slice() -> Iterator[int]:
    """A number N such that nobody else uses 127.77.N.x and its twins."""
    for number in range(100, 250):
        with socket.socket() as lock:
            try:
                lock.bind((f"127.77.{number}.254", 47077))
            except OSError:
                continue
            yield number
            return
    raise AssertionError("no free slice of loopback addresses")
