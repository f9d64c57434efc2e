"""Probes as kubelet runs them: an HTTP request, a TCP connection or a command."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import httpx

from lab.cluster import process
from lab.kinds.kubernetes.pod_spec import HTTPGetAction, Probe


@dataclass(frozen=True, slots=True)
class Target:
    """What a probe needs to know of its container."""

    address: str
    ports: Mapping[str, int]
    env: Mapping[str, str]
    folder: Path
    command: list[str] | None = None
    """The probe's command as it is run here."""


async def check(probe: Probe, target: Target, client: httpx.AsyncClient) -> str | None:
    """None when the probe succeeds, else why not."""
    timeout = probe.timeout_seconds
    if probe.http_get is not None:
        return await http_get(probe.http_get, target, client, timeout)
    if probe.tcp_socket is not None:
        port = number(probe.tcp_socket.port, target.ports)
        return await connect(target.address, port, timeout)
    if target.command is not None:
        status, output = await process.run(
            target.command, env=target.env, cwd=target.folder, timeout=timeout
        )
        if status == 124:
            return f"command timed out after {timeout} s"
        text = output.decode(errors="replace").strip()
        return None if status == 0 else f"command ended with {status}: {text}"
    return None


def number(port: int | str, ports: Mapping[str, int]) -> int:
    return port if isinstance(port, int) else ports[port]


async def http_get(
    action: HTTPGetAction, target: Target, client: httpx.AsyncClient, timeout: float
) -> str | None:
    """200 to 399 is success, as for kubelet."""
    port = number(action.port, target.ports)
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


async def connect(address: str, port: int, timeout: float) -> str | None:
    try:
        async with asyncio.timeout(timeout):
            _, writer = await asyncio.open_connection(address, port)
    except (OSError, TimeoutError) as error:
        return f"dial {address}:{port}: {str(error) or 'timed out'}"
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()
    return None
