"""Values of Istio's API: durations, hosts, ports, percentages, regular expressions."""

from __future__ import annotations

import contextlib
import ipaddress
import re
from collections.abc import Callable, Iterable, Iterator
from datetime import timedelta
from typing import Annotated, Any

import re2
from pydantic import BeforeValidator, Field

from lab import durations
from lab.resources.resource import Problem

MILLISECOND = timedelta(milliseconds=1)


def parse_duration(value: object) -> timedelta:
    """Parses a Go duration ("1h30m", "0.5s", "100ms"). Raises ValueError."""
    if isinstance(value, timedelta):
        return value
    if not isinstance(value, str):
        raise ValueError('a duration is a string with a unit, for example "5s" or "100ms"')
    return durations.parse(value)


def _positive(value: object) -> timedelta:
    duration = parse_duration(value)
    if duration < MILLISECOND:
        raise ValueError("duration must be greater than 1ms")
    if duration % MILLISECOND:
        raise ValueError("only durations to ms precision are supported")
    return duration


Duration = Annotated[timedelta, BeforeValidator(parse_duration)]
PositiveDuration = Annotated[timedelta, BeforeValidator(_positive)]
"""A duration of 1 ms at least, as most of Istio's fields demand it."""
PortKey = Annotated[
    int,
    BeforeValidator(lambda key: int(key) if isinstance(key, str) and key.isdecimal() else key),
]
"""A port as the key of a map, which is text in JSON."""
Unsigned = Annotated[int, Field(ge=0, le=4294967295)]


def regex_problem(pattern: str) -> str | None:
    """Returns why RE2, the engine of Envoy, refuses a pattern; None when it accepts it."""
    options = re2.Options()
    options.log_errors = False
    try:
        re2.compile(pattern, options)
    except re2.error as error:
        detail = error.args[0]
        reason = detail.decode() if isinstance(detail, bytes) else str(detail)
        return f"regex `{pattern}` does not compile in RE2: {reason}"
    return None


_LABEL = re.compile(r"[a-zA-Z0-9]([-a-zA-Z0-9]{0,61}[a-zA-Z0-9])?")
_WILDCARD_LABEL = re.compile(r"\*|(\*-?)?[a-zA-Z0-9]([-a-zA-Z0-9]{0,61}[a-zA-Z0-9])?")


def is_dns_label(name: str) -> bool:
    """Returns whether a name is a DNS-1123 label, as istiod checks subset and port names."""
    return _LABEL.fullmatch(name) is not None


def host_problem(host: str, *, wildcard: bool = True) -> str | None:
    """Returns why `host` is no (wildcard) domain name, in istiod's words; None when it is one."""
    if not host:
        return "domain name cannot be empty"
    if len(host) > 255:
        return f'domain name "{host}" too long (max 255)'
    first, *rest = host.removesuffix(".").split(".")
    pattern = _WILDCARD_LABEL if wildcard else _LABEL
    if not pattern.fullmatch(first):
        return f'domain name "{host}" invalid (label "{first}" invalid)'
    if rest and rest[-1].isdecimal():
        reason = f'top level domain "{rest[-1]}" cannot be all-numeric'
        return f'domain name "{host}" invalid ({reason})'
    for label in rest:
        if not _LABEL.fullmatch(label):
            return f'domain name "{host}" invalid (label "{label}" invalid)'
    return None


def is_ip(host: str) -> bool:
    """Returns whether a host is an address, of IPv4 or IPv6."""
    with contextlib.suppress(ValueError):
        return bool(ipaddress.ip_address(host))
    return False


def listed_host_problems(host: str) -> Iterator[str]:
    """Yields why istiod refuses a host that a Gateway or a Sidecar lists: "*", or with a dot."""
    if host == "*":
        return
    if "." not in host:
        yield "short names (non FQDN) are not allowed"
    if problem := host_problem(host):
        yield problem
    if "*" in host and not host.startswith("*."):
        yield f'partial wildcard "{host}" not allowed'


def port_problem(port: int) -> str | None:
    """Returns why a number is no port; None when it is one."""
    return None if 1 <= port <= 65535 else f"port number {port} must be in the range 1..65535"


def percent_problem(percent: float) -> str | None:
    """Returns why istiod refuses a fractional percentage; None when it accepts it."""
    if percent == 0 or 0.0001 <= percent <= 100:
        return None
    return f"percentage {percent:g} is neither 0.0, nor in range [0.0001, 100.0]"


def export_to(names: list[str], *, nobody: bool = False) -> Iterator[Problem]:
    """Checks `exportTo`: ".", "*" and namespaces; for a ServiceEntry also "~", to nobody.

    "*" and "~" are only allowed alone.
    """
    signs = (".", "*", "~") if nobody else (".", "*")
    for index, name in enumerate(names):
        if name not in signs and not is_dns_label(name):
            listed = " or ".join(f'"{sign}"' for sign in signs)
            yield Problem((index,), f'"{name}" is no namespace, {listed}')
    for alone in ("*", "~"):
        if alone in names and len(names) > 1:
            yield Problem((), f'when "{alone}" is present, exportTo can have no other value')


def duplicates(values: Iterable[Any]) -> Iterator[tuple[int, Any]]:
    """Yields each value that came before, with its index."""
    seen: set[Any] = set()
    for index, value in enumerate(values):
        if value in seen:
            yield index, value
        seen.add(value)


def within(low: float, high: float) -> Callable[[float], bool]:
    """Returns a test for a range, both ends included."""
    return lambda value: low <= value <= high
