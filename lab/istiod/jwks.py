"""The keys that `jwksUri` names: fetched by the control plane, never by a proxy (as in istiod)."""

from __future__ import annotations

import ipaddress
import json
import logging
import socket
from collections.abc import Iterable, Mapping
from datetime import timedelta
from urllib.parse import urlsplit, urlunsplit

import anyio
import httpx

from lab.kinds.request_authentication import becomes as request_authentication
from lab.kinds.request_authentication.checks import usable_keys
from lab.model import Service, Snapshot

REFRESH = timedelta(minutes=20)
"""How often keys are fetched again, as istiod does."""

RETRY = timedelta(seconds=5)
"""How soon a failed fetch is tried again (istiod waits a minute; a learner would not)."""

_LIMIT = 1 << 20
_TIMEOUT = 5.0
_OPENID = "/.well-known/openid-configuration"

log = logging.getLogger(__name__)


class FetchError(Exception):
    """Keys could not be had; the message says from where and why."""


def sources(snapshot: Snapshot) -> set[str]:
    """Every URL that a RequestAuthentication needs keys from."""
    return {
        source
        for policy in snapshot.of(request_authentication.KIND)
        for rule in policy.spec.jwt_rules
        if (source := request_authentication.keys_source(rule)) is not None
    }


async def fetch(
    client: httpx.AsyncClient,
    wanted: Iterable[str],
    services: Iterable[Service] = (),
    blocked: Iterable[str] = (),
) -> tuple[dict[str, str], dict[str, str]]:
    """Key sets by URL, and for those that could not be fetched the reason.

    A host of the cluster is reached at its cluster IP. `blocked` are networks that must not be
    asked (istiod's BLOCKED_CIDRS_IN_JWKS_URIS).
    """
    found: dict[str, str] = {}
    failed: dict[str, str] = {}
    hosts = _cluster_hosts(services)
    networks = [ipaddress.ip_network(block, strict=False) for block in blocked]

    async def one(url: str) -> None:
        try:
            target = url
            if url.endswith(_OPENID):
                document = json.loads(await _get(client, url, hosts, networks))
                named = document.get("jwks_uri") if isinstance(document, dict) else None
                if not isinstance(named, str):
                    raise FetchError(f"{url}: no jwks_uri in the OpenID configuration")
                target = named
            text = await _get(client, target, hosts, networks)
            if not usable_keys(text):
                raise FetchError(f"{target}: no usable key in the answer")
        except (FetchError, ValueError) as error:
            failed[url] = str(error)
            log.warning("JWKS: %s; tokens that need these keys are refused", error)
        else:
            found[url] = text

    async with anyio.create_task_group() as group:
        for url in sorted(set(wanted)):
            group.start_soon(one, url)
    return found, failed


def _cluster_hosts(services: Iterable[Service]) -> Mapping[str, str]:
    hosts: dict[str, str] = {}
    for service in services:
        if service.cluster_ip is None:
            continue
        short = f"{service.name}.{service.namespace}"
        for name in (service.host, f"{short}.svc", short):
            hosts[name] = service.cluster_ip
    return hosts


_Network = ipaddress.IPv4Network | ipaddress.IPv6Network


async def _get(
    client: httpx.AsyncClient, url: str, hosts: Mapping[str, str], blocked: list[_Network]
) -> str:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise FetchError(f"{url}: only http and https URLs have keys")
    headers = {}
    if (address := hosts.get(parts.hostname)) is not None:
        headers["host"] = parts.netloc
        place = f"{address}:{parts.port}" if parts.port else address
        url = urlunsplit(parts._replace(netloc=place))
    elif blocked:
        await _check(parts.hostname, blocked)
    try:
        async with client.stream("GET", url, headers=headers, timeout=_TIMEOUT) as answer:
            if answer.status_code != 200:
                raise FetchError(f"{url}: answered {answer.status_code}")
            body = b""
            async for chunk in answer.aiter_bytes():
                body += chunk
                if len(body) > _LIMIT:
                    raise FetchError(f"{url}: more than {_LIMIT} bytes")
    except httpx.HTTPError as error:
        raise FetchError(f"{url}: {error or type(error).__name__}") from error
    return body.decode(errors="replace")


async def _check(host: str, blocked: list[_Network]) -> None:
    try:
        answers = await anyio.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except OSError as error:
        raise FetchError(f"{host}: {error}") from error
    for *_, place in answers:
        if any(ipaddress.ip_address(place[0]) in network for network in blocked):
            raise FetchError(f"{host}: {place[0]} is in a blocked network")
