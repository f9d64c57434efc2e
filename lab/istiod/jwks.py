"""The key sets behind `jwksUri`: fetched by the control plane, never by a proxy (as in istiod)."""

from __future__ import annotations

import asyncio
import ipaddress
import json
import logging
import socket
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import anyio
import httpx

from lab import names
from lab.kinds.request_authentication import becomes as request_authentication
from lab.kinds.request_authentication.checks import usable_keys
from lab.model import Service, Snapshot
from lab.resources.resource import Resource

REFRESH = timedelta(minutes=20)
"""The time until keys are fetched again, as in istiod."""

RETRY = timedelta(seconds=5)
"""The time until a failed fetch is tried again (a minute in istiod)."""

PATIENCE = 1.0
"""Seconds a push waits for key sets; those that come later are pushed later."""

BLOCKED_NETWORKS = "BLOCKED_CIDRS_IN_JWKS_URIS"
"""istiod's variable: networks that no keys are fetched from, separated by commas."""

ALWAYS_BLOCKED = {
    "link-local": ("169.254.0.0/16", "fe80::/10", "224.0.0.0/24", "ff02::/16"),
    "a cloud's metadata": ("100.100.100.200/32", "fd00:ec2::/32"),
}
"""Networks that istiod fetches no keys from since 1.31, whatever the variable says."""

_LIMIT = 1 << 20
_TIMEOUT = 5.0
_OPENID = "/.well-known/openid-configuration"

_Network = ipaddress.IPv4Network | ipaddress.IPv6Network

log = logging.getLogger(__name__)


class FetchError(Exception):
    """Keys that could not be fetched; the message names the URL and the reason."""


@dataclass(slots=True)
class KeySets:
    """The key sets that the RequestAuthentications of one lab need."""

    client: httpx.AsyncClient
    changed: Callable[[], None]
    """Called when keys have arrived, or could not be fetched."""
    keys: dict[str, str] = field(default_factory=dict)
    """JSON Web Key Sets by the URL they came from."""
    failures: dict[str, str] = field(default_factory=dict)
    """Why the last fetch of a URL failed."""
    _due: dict[str, datetime] = field(default_factory=dict)
    _fetching: asyncio.Task[None] | None = None

    async def refresh(self, snapshot: Snapshot, blocked: Iterable[_Network]) -> None:
        """Fetches what is due. Waits for PATIENCE seconds only; a slow issuer delays nothing."""
        policies = snapshot.of(request_authentication.KIND)
        wanted = {url for policy in policies for _, url in sources(policy)}
        known: tuple[dict[str, Any], ...] = (self.keys, self.failures, self._due)
        for kept in known:
            for url in kept.keys() - wanted:
                del kept[url]
        now = datetime.now(UTC)
        due = [url for url in wanted if self._due.get(url, now) <= now]
        if due and self._fetching is None:
            self._fetching = asyncio.create_task(self._fetch(due, snapshot.services, blocked))
        if self._fetching is not None:
            await asyncio.wait({self._fetching}, timeout=PATIENCE)

    async def _fetch(
        self, due: list[str], services: Iterable[Service], blocked: Iterable[_Network]
    ) -> None:
        try:
            found, failed = await fetch(self.client, due, services, blocked)
        finally:
            self._fetching = None
        now = datetime.now(UTC)
        for url in found:
            self.failures.pop(url, None)
        for url, reason in failed.items():
            if self.failures.get(url) != reason:
                log.warning("JWKS: %s; tokens that need these keys are refused", reason)
        self.keys |= found
        self.failures |= failed
        self._due |= dict.fromkeys(found, now + REFRESH) | dict.fromkeys(failed, now + RETRY)
        self.changed()

    def next_due(self) -> list[datetime]:
        """Returns the times at which keys are to be fetched again."""
        return list(self._due.values())

    def warnings(self, policies: Iterable[Resource]) -> Iterator[str]:
        """Yields why keys of these RequestAuthentications are missing, or old."""
        for policy in policies:
            for path, url in sources(policy):
                reason = self.failures.get(url)
                if reason is None and url not in self.keys:
                    reason = f"{url} has not answered yet"
                if reason is not None:
                    effect = (
                        "the keys of the last fetch stay in force"
                        if url in self.keys
                        else "tokens that need these keys are refused"
                    )
                    yield policy.describe(path, f"keys not fetched: {reason}; {effect}")


def sources(policy: Resource) -> Iterator[tuple[tuple[str | int, ...], str]]:
    """Yields each URL that a RequestAuthentication needs keys from, after the field it is in."""
    for index, rule in enumerate(policy.spec.jwt_rules):
        if (url := request_authentication.keys_source(rule)) is not None:
            yield ("spec", "jwtRules", index, "jwksUri" if rule.keys_uri else "issuer"), url


def blocked_networks(operators: Iterable[Resource]) -> list[_Network]:
    """Returns the networks of BLOCKED_NETWORKS; the last IstioOperator that sets it holds."""
    text = ""
    for operator in operators:
        values = operator.spec.values
        if values is not None and values.pilot is not None:
            text = str((values.pilot.env or {}).get(BLOCKED_NETWORKS, text))
    return [ipaddress.ip_network(part.strip(), strict=False) for part in text.split(",") if part]


async def fetch(
    client: httpx.AsyncClient,
    wanted: Iterable[str],
    services: Iterable[Service] = (),
    blocked: Iterable[_Network] = (),
) -> tuple[dict[str, str], dict[str, str]]:
    """Returns key sets by URL, and the reasons by URL of those that could not be fetched.

    A host of the cluster is reached at its cluster IP; no other host may be in a blocked network,
    or in one of ALWAYS_BLOCKED.
    """
    found: dict[str, str] = {}
    failed: dict[str, str] = {}
    hosts = {
        name: service.cluster_ip
        for service in services
        if service.cluster_ip is not None
        for name in names.alternatives(service.host, "")
    }
    networks = list(blocked)

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
        else:
            found[url] = text

    async with anyio.create_task_group() as group:
        for url in sorted(set(wanted)):
            group.start_soon(one, url)
    return found, failed


async def _get(
    client: httpx.AsyncClient, url: str, hosts: Mapping[str, str], blocked: list[_Network]
) -> str:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise FetchError(f"{url}: only http and https URLs have keys")
    target, headers = url, {}
    if (address := hosts.get(parts.hostname)) is not None:
        headers["host"] = parts.netloc
        place = f"{address}:{parts.port}" if parts.port else address
        target = urlunsplit(parts._replace(netloc=place))
    else:
        await _require_allowed(url, parts.hostname, blocked)
    try:
        async with client.stream("GET", target, headers=headers, timeout=_TIMEOUT) as answer:
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


async def _require_allowed(url: str, host: str, blocked: list[_Network]) -> None:
    try:
        answers = await anyio.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except OSError:
        return  # The fetch itself says it, or a proxy knows the name.
    for *_, place in answers:
        address = ipaddress.ip_address(place[0])
        address = getattr(address, "ipv4_mapped", None) or address
        for what, networks in ALWAYS_BLOCKED.items():
            if any(address in ipaddress.ip_network(network) for network in networks):
                raise FetchError(f"{url}: {address} is {what}: no keys are fetched from there")
        for network in blocked:
            if address in network:
                raise FetchError(f"{url}: {address} is in {network}, which {BLOCKED_NETWORKS} bars")
