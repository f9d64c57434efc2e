"""Envoy's way from a connection to a route: filter chain, virtual host, route.

It is read from the JSON that Envoy is given, so the answer holds for EnvoyFilters too.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from lab.explain.interpret import matchers
from lab.explain.interpret.matchers import Request
from lab.model import Json

Rank = tuple[int, int]


def filter_chain(
    listener: Json,
    *,
    port: int = 0,
    address: str = "",
    server_name: str = "",
    tls: bool,
    alpn: Sequence[str] = (),
) -> Json | None:
    """Returns the filter chain for a connection, else the listener's default chain."""

    def equals(value: object) -> Callable[[object], Rank | None]:
        return lambda wanted: (0, 0) if wanted == value else None

    def for_addresses(ranges: list[Json]) -> Rank | None:
        lengths = (one["prefix_len"] for one in ranges if matchers.within(one, address))
        return max(((length, 0) for length in lengths), default=None)

    def for_names(wanted: list[str]) -> Rank | None:
        ranks = (_domain_rank(name, server_name) for name in wanted)
        return max(filter(None, ranks), default=None)

    def for_protocols(wanted: list[str]) -> Rank | None:
        offered = (index for index, protocol in enumerate(alpn) if protocol in wanted)
        return next(((len(alpn) - index, 0) for index in offered), None)

    chains: list[Json] = listener.get("filter_chains", [])
    chains = _best(chains, "destination_port", equals(port))
    chains = _best(chains, "prefix_ranges", for_addresses)
    chains = _best(chains, "server_names", for_names)
    chains = _best(chains, "transport_protocol", equals("tls" if tls else "raw_buffer"))
    chains = _best(chains, "application_protocols", for_protocols)
    return chains[0] if chains else listener.get("default_filter_chain")


def _best(chains: list[Json], key: str, rank: Callable[[Any], Rank | None]) -> list[Json]:
    """The chains that fit a criterion best; one without a value fits, but least."""
    ranks: list[Rank | None] = []
    for chain in chains:
        wanted = chain.get("filter_chain_match", {}).get(key)
        ranks.append(rank(wanted) if wanted else (-1, 0))
    best = max(filter(None, ranks), default=None)
    return [chain for chain, found in zip(chains, ranks, strict=True) if best and found == best]


def manager(chain: Json | None) -> Json | None:
    """Returns the HTTP connection manager of a filter chain; None when it forwards bytes."""
    found = configurations((chain or {}).get("filters", ()), "HttpConnectionManager")
    return found[0] if found else None


def configurations(filters: Iterable[Json], kind: str) -> list[Json]:
    """Returns the configurations of the filters of one type that are not disabled."""
    return [
        config
        for item in filters
        if (config := item.get("typed_config", {})).get("@type", "").endswith(kind)
        and not item.get("disabled")
    ]


def virtual_host(configuration: Json, authority: str) -> Json | None:
    """Returns the virtual host for a host header: exact, the longest wildcard, then `*`."""
    host = authority.lower()
    if configuration.get("ignore_port_in_host_matching"):
        host = re.sub(r":\d+$", "", host)
    ranked = [
        (rank, candidate)
        for candidate in configuration["virtual_hosts"]
        for domain in candidate["domains"]
        if (rank := _domain_rank(domain.lower(), host)) is not None
    ]
    return max(ranked, key=lambda found: found[0], default=(None, None))[1]


def _domain_rank(domain: str, host: str) -> Rank | None:
    """Returns how well a domain, possibly a wildcard, fits a host; None when it does not."""
    if domain == "*":
        return (0, 0)
    if domain.startswith("*"):
        return (2, len(domain)) if host.endswith(domain[1:]) and host != domain[1:] else None
    if domain.endswith("*"):
        return (1, len(domain)) if host.startswith(domain[:-1]) and host != domain[:-1] else None
    return (3, 0) if domain == host else None


def route(host: Json, request: Request) -> int | None:
    """Returns the index of the first route that fits a request; None is a 404."""
    routes = enumerate(host.get("routes", ()))
    return next((index for index, one in routes if matches(one["match"], request)), None)


def matches(match: Json, request: Request) -> bool:
    """Whether a request passes a RouteMatch."""
    return (
        _path(match, request)
        and all(matchers.header(item, request) for item in match.get("headers", ()))
        and all(
            matchers.query_parameter(item, request) for item in match.get("query_parameters", ())
        )
        and all(matchers.metadata(item, request) for item in match.get("dynamic_metadata", ()))
    )


def _path(match: Json, request: Request) -> bool:
    connect = request.method == "CONNECT"
    if connect or "connect_matcher" in match:
        return connect and "connect_matcher" in match
    path = request.bare_path
    if (pattern := match.get("safe_regex")) is not None:
        return matchers.full_match(pattern["regex"], path)
    wanted = str(match.get("path", match.get("prefix", "")))
    if match.get("case_sensitive") is False:
        wanted, path = wanted.lower(), path.lower()
    return path == wanted if "path" in match else path.startswith(wanted)


def by_name(items: Iterable[Json], name: str) -> Json | None:
    return next((item for item in items if item.get("name") == name), None)
