"""Probes as kubelet runs them: an HTTP request, a TCP connection or a command."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass

from lab.cluster import process
from lab.cluster.network import Way
from lab.cluster.process import TIMED_OUT, Command
from lab.kinds.kubernetes.pod_spec import HTTPGetAction, Probe
from lab.model import Pod
from lab.net.streams import Streams

REWRITE = "sidecar.istio.io/rewriteAppHTTPProbers"


@dataclass(frozen=True, slots=True)
class Target:
    """A container, as a probe reaches it."""

    address: str
    """For messages."""
    connect: Callable[[int], Awaitable[Streams]]
    """Connects to a port."""
    ports: Mapping[str, int]
    command: Command | None = None
    """The command of an exec probe, as it is run here."""


def way(pod: Pod) -> Way:
    """Returns the way by which the containers of a pod are probed.

    istiod rewrites a probe so that the agent asks the application, past the proxy. With the
    annotation `sidecar.istio.io/rewriteAppHTTPProbers: "false"` kubelet asks it through the proxy
    and its policies.
    """
    rewritten = pod.proxy != "none" and pod.annotations.get(REWRITE) != "false"
    return "agent" if rewritten else "kubelet"


async def check(probe: Probe, target: Target) -> str | None:
    """Returns None when the probe succeeds, else the reason of its failure."""
    timeout = probe.timeout_seconds
    if probe.http_get is not None:
        return await http_get(probe.http_get, target, timeout)
    if probe.tcp_socket is not None:
        return await _connect(_number(probe.tcp_socket.port, target), target, timeout)
    if target.command is not None:
        status, output = await process.run(target.command, timeout=timeout)
        if status == TIMED_OUT:
            return f"command timed out after {timeout} s"
        text = output.decode(errors="replace").strip()
        return None if status == 0 else f"command ended with {status}: {text}"
    return None


def _number(port: int | str, target: Target) -> int:
    return port if isinstance(port, int) else target.ports[port]


async def http_get(action: HTTPGetAction, target: Target, timeout: float) -> str | None:
    """Sends a GET request; a status of 200 to 399 is success, as for kubelet."""
    port = _number(action.port, target)
    place, path = f"{target.address}:{port}", f"/{action.path.lstrip('/')}"
    url = f"{action.scheme.lower()}://{place}{path}"
    headers = {"Host": place, "User-Agent": "kube-probe/1.30", "Accept": "*/*"}
    headers |= {header.name: header.value for header in action.http_headers}
    lines = [
        f"GET {path} HTTP/1.1",
        *(f"{n}: {v}" for n, v in headers.items()),
        "Connection: close",
    ]
    try:
        async with asyncio.timeout(timeout), _connection(port, target) as (reader, writer):
            if action.scheme == "HTTPS":
                await writer.start_tls(_any_certificate())
            writer.write("\r\n".join([*lines, "", ""]).encode())
            version, _, rest = (await reader.readline()).decode("latin-1").partition(" ")
    except TimeoutError:
        return f"no answer from {url} within {timeout} s"
    except OSError as error:
        return f"{url}: {str(error) or type(error).__name__}"
    status = rest[:3]
    if not version.startswith("HTTP/1.") or not status.isdigit():
        return f"{url}: no HTTP response"
    return None if 200 <= int(status) < 400 else f"HTTP probe failed with statuscode: {status}"


async def _connect(port: int, target: Target, timeout: float) -> str | None:
    try:
        async with asyncio.timeout(timeout), _connection(port, target):
            return None
    except (OSError, TimeoutError) as error:
        return f"dial {target.address}:{port}: {str(error) or 'timed out'}"


@contextlib.asynccontextmanager
async def _connection(port: int, target: Target) -> AsyncIterator[Streams]:
    reader, writer = await target.connect(port)
    try:
        yield reader, writer
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


def _any_certificate() -> ssl.SSLContext:
    """Returns a context that trusts whoever answers, as kubelet does."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context
