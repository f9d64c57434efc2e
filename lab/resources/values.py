"""Values of Istio's API: durations, hosts, ports, percentages, regular expressions."""

from __future__ import annotations

import contextlib
import ipaddress
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import timedelta
from typing import Annotated, Any

import re2
from pydantic import BeforeValidator, Field

from lab import durations
from lab.resources.resource import Problem, Resource

MILLISECOND = timedelta(milliseconds=1)
_MS_PRECISION = "only durations to ms precision are supported"


def parse_duration(value: object) -> timedelta:
    """Parses a Go duration ("1h30m", "0.5s", "100ms"). Raises ValueError."""
    if isinstance(value, timedelta):
        return value
    if not isinstance(value, str):
        raise ValueError('a duration is a string with a unit, for example "5s" or "100ms"')
    return durations.parse(value)


def duration_problem(duration: timedelta) -> str | None:
    """Returns why istiod refuses most durations: of less than 1 ms, or finer ones; else None."""
    if duration < MILLISECOND:
        return "duration must be greater than 1ms"
    return _MS_PRECISION if duration % MILLISECOND else None


def _positive(value: object) -> timedelta:
    duration = parse_duration(value)
    problem = duration_problem(duration)
    if isinstance(value, str) and durations.nanoseconds(value) % 1_000_000:
        problem = problem or _MS_PRECISION
    if problem:
        raise ValueError(problem)
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
Int32 = Annotated[int, Field(ge=-2147483648, le=2147483647)]


def regex_problem(pattern: str) -> str | None:
    """Returns why istiod refuses a pattern of RE2, Envoy's engine; None when it accepts it."""
    if len(pattern.encode()) > 1024:
        return "regex is too large, max length allowed is 1024"
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


_TAG_NAME = r"([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]"
_TAG_PREFIX = r"[a-zA-Z0-9]([-a-zA-Z0-9]*[a-zA-Z0-9])?(\.[a-zA-Z0-9]([-a-zA-Z0-9]*[a-zA-Z0-9])?)*/"
_TAG_KEY = re.compile(f"({_TAG_PREFIX})?{_TAG_NAME}")
_TAG_VALUE = re.compile(f"({_TAG_NAME})?")


def tag_problems(labels: Mapping[str, str]) -> Iterator[Problem]:
    """Yields the labels of workloads that istiod refuses."""
    for key, value in labels.items():
        prefix, _, name = key.rpartition("/")
        if not _TAG_KEY.fullmatch(key) or len(prefix) > 253 or len(name) > 63:
            yield Problem((key,), f'invalid tag key: "{key}"')
        if not _TAG_VALUE.fullmatch(value):
            yield Problem((key,), f'invalid tag value: "{value}"')


def host_problem(host: str, *, wildcard: bool = True) -> str | None:
    """Returns why `host` is no (wildcard) domain name, in istiod's words; None when it is one."""
    if len(host) > 255:
        return f'domain name "{host}" too long (max 255)'
    if not host:
        return "empty domain name not allowed"
    if not wildcard:
        return _labels_problem(host)
    first, dot, rest = host.partition(".")
    if len(first) > 63 or not _WILDCARD_LABEL.fullmatch(first):
        return f'domain name "{host}" invalid (label "{first}" invalid)'
    return _labels_problem(rest) if dot else None


def _labels_problem(domain: str) -> str | None:
    *_, last = labels = domain.split(".")
    if re.fullmatch(r"[+-]?[0-9]+", last):
        reason = f'top level domain "{last}" cannot be all-numeric'
        return f'domain name "{domain}" invalid ({reason})'
    for label in labels if last else labels[:-1]:
        if not is_dns_label(label):
            return f'domain name "{domain}" invalid (label "{label}" invalid)'
    return None


def is_ip(host: str) -> bool:
    """Returns whether a host is an address, of IPv4 or IPv6."""
    with contextlib.suppress(ValueError):
        return bool(ipaddress.ip_address(host))
    return False


def network_problem(network: str) -> str | None:
    """Returns why a text is neither an address nor a CIDR block; None when it is one."""
    if network.count("/") != 1:
        return None if is_ip(network) else f"{network} is not a valid IP"
    return None if is_cidr(network) else f"{network} is not a valid CIDR block"


def is_cidr(network: str) -> bool:
    """Returns whether a text is a CIDR block, with its length as a plain number."""
    if not re.fullmatch(r"[^/%]+/(0|[1-9][0-9]*)", network):
        return False
    with contextlib.suppress(ValueError):
        return bool(ipaddress.ip_network(network, strict=False))
    return False


def listed_host_problems(host: str, *, gateway: bool) -> Iterator[Problem]:
    """Yields why istiod refuses a host, or namespace/host, that a Gateway or a Sidecar lists."""
    namespace, slash, name = host.partition("/")
    if not slash and not gateway:
        yield Problem((), f'host must be of form namespace/dnsName, found "{host}"')
        return
    if not slash:
        name = host
    elif not namespace or not name:
        yield Problem((), "config namespace and dnsName in host entry cannot be empty")
    elif gateway and namespace not in ("*", ".") and not is_dns_label(namespace):
        yield Problem((), f'invalid namespace value "{namespace}" in gateway')
    elif not gateway:
        included = namespace.removeprefix("~")
        if included not in ("", "*", ".") and not is_dns_label(included):
            yield Problem((), f'invalid namespace value "{namespace}" in sidecar')
    if name != "*" and "." not in name:
        yield Problem((), "short names (non FQDN) are not allowed")
    if (problem := host_problem(name)) and not (gateway and is_ip(name)):
        yield Problem((), problem)
    if problem := partial_wildcard(name):
        yield Problem((), problem)


def partial_wildcard(host: str) -> str | None:
    """Returns why a host has a wildcard that is not its whole first label; None when it hasn't."""
    if "*" in host and host != "*" and not host.startswith("*."):
        return f'partial wildcard "{host}" not allowed'
    return None


def subset_problem(name: str) -> str | None:
    """Returns why istiod refuses the name of a subset; None when it accepts it."""
    if not name:
        return "subset name cannot be empty"
    return None if is_dns_label(name) else f"subset name is invalid: {name}"


def idle_timeout_problem(duration: timedelta) -> str | None:
    """Returns why istiod refuses a timeout that may be 0, for none; None when it accepts it."""
    return None if abs(duration) < MILLISECOND else duration_problem(duration)


def port_problem(port: int) -> str | None:
    """Returns why a number is no port; None when it is one."""
    return None if 1 <= port <= 65535 else f"port number {port} must be in the range 1..65535"


def percent_problem(percent: float) -> str | None:
    """Returns why istiod refuses a fractional percentage; None when it accepts it."""
    if percent == 0 or 0.0001 <= percent <= 100:
        return None
    return f"percentage {percent:g} is neither 0.0, nor in range [0.0001, 100.0]"


def export_to(resource: Resource) -> Iterator[Problem]:
    """Checks `exportTo`: ".", "*" and namespaces; for a ServiceEntry also "~", to nobody."""
    path = ("spec", "exportTo")
    given: list[str] = resource.spec.export_to or []
    named = [resource.namespace if name == "." else name for name in given]
    for index, name in duplicates(named):
        what = f" for entry {name}"
        if given[index] == ".":
            what = f": . and current namespace {name}"
        yield Problem((*path, index), f"duplicate entries in exportTo{what}")
    for index, name in enumerate(named):
        if name == "~" and resource.kind != "ServiceEntry":
            reason = "exportTo ~ (none) is not allowed for Istio configuration objects"
            yield Problem((*path, index), reason)
        elif name not in ("*", "~") and not is_dns_label(name):
            reason = "only .,*, or a valid DNS 1123 label is allowed as exportTo entry"
            yield Problem((*path, index), reason)
    if "*" in named and len(named) > 1:
        reason = "cannot have both public (*) and non-public exportTo values for a resource"
        yield Problem(path, reason)
    if "~" in named and len(named) > 1 and resource.kind == "ServiceEntry":
        yield Problem(path, "cannot export service entry to no one (~) and someone")


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
