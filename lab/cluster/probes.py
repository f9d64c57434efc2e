"""Probes as kubelet runs them: an HTTP request, a TCP connection or a command.

One thing differs from kubelet: the address. See `address`.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping
from dataclasses import dataclass

import httpx

from lab.cluster import process
from lab.cluster.process import TIMED_OUT, Command
from lab.kinds.kubernetes.pod_spec import HTTPGetAction, Probe
from lab.model import Pod

REWRITE = "sidecar.istio.io/rewriteAppHTTPProbers"


@dataclass(frozen=True, slots=True)
class Target:
    """A container, as a probe reaches it."""

    address: str
    ports: Mapping[str, int]
    command: Command | None = None
    """The command of an exec probe, as it is run here."""


def address(pod: Pod) -> str:
    """Returns the address at which the containers of a pod are probed.

    kubelet probes the pod's address, and istiod rewrites a probe so that it reaches the
    application past the proxy. Here the probe goes to the application's own (inside) address at
    once. With the annotation `sidecar.istio.io/rewriteAppHTTPProbers: "false"` it goes to the
    pod's address, and so through the proxy and its policies.
    """
    if pod.proxy == "none" or pod.annotations.get(REWRITE) == "false":
        return pod.address
    return pod.inside_address


async def check(probe: Probe, target: Target, client: httpx.AsyncClient) -> str | None:
    """Returns None when the probe succeeds, else the reason of its failure."""
    timeout = probe.timeout_seconds
    if probe.http_get is not None:
        return await http_get(probe.http_get, target, client, timeout)
    if probe.tcp_socket is not None:
        return await _connect(target.address, _number(probe.tcp_socket.port, target), timeout)
    if target.command is not None:
        status, output = await process.run(target.command, timeout=timeout)
        if status == TIMED_OUT:
            return f"command timed out after {timeout} s"
        text = output.decode(errors="replace").strip()
        return None if status == 0 else f"command ended with {status}: {text}"
    return None


def _number(port: int | str, target: Target) -> int:
    return port if isinstance(port, int) else target.ports[port]


async def http_get(
    action: HTTPGetAction, target: Target, client: httpx.AsyncClient, timeout: float
) -> str | None:
    """Sends a GET request; a status of 200 to 399 is success, as for kubelet."""
    port = _number(action.port, target)
    url = f"{action.scheme.lower()}://{target.address}:{port}/{action.path.lstrip('/')}"
    headers = {"user-agent": "kube-probe/1.30", "connection": "close"}
    headers |= {header.name: header.value for header in action.http_headers}
    try:
        async with client.stream("GET", url, headers=headers, timeout=timeout) as response:
            if 200 <= response.status_code < 400:
                return None
            return f"HTTP probe failed with statuscode: {response.status_code}"
    except httpx.TimeoutException:
        return f"no answer from {url} within {timeout} s"
    except httpx.HTTPError as error:
        return f"{url}: {str(error) or type(error).__name__}"


async def _connect(address: str, port: int, timeout: float) -> str | None:
    try:
        async with asyncio.timeout(timeout):
            _, writer = await asyncio.open_connection(address, port)
    except (OSError, TimeoutError) as error:
        return f"dial {address}:{port}: {str(error) or 'timed out'}"
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()
    return None
