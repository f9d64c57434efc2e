"""What the typed Istio kinds share: value types, and fields the lab refuses or Istio ignores.

A model lists every field of Istio's CRD. A field outside the lab's subset is declared with
`refused(reason)` and one that Istio itself ignores with `ignored(reason)`, so that both are
answered by name instead of being "unknown" or silently dropped; `field_problems` finds them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import timedelta
from typing import Annotated, Any

import re2
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints

from lab import durations
from lab.resources.resource import Model, Path, Problem

NETWORKING_VERSIONS = ("v1", "v1beta1", "v1alpha3")
"""The versions of networking.istio.io that Istio 1.30 serves for its main kinds."""

MILLISECOND = timedelta(milliseconds=1)


class IstioModel(Model):
    """Istio's JSON has camelCase names only; the snake_case spelling is unknown to a cluster."""

    model_config = ConfigDict(populate_by_name=False, validate_by_alias=True)


def refused(reason: str, **options: Any) -> Any:
    """A field of Istio's API that the lab refuses at apply; `reason` says why or what instead."""
    return Field(default=None, json_schema_extra={"refused": reason}, **options)


def ignored(reason: str, **options: Any) -> Any:
    """A field Istio accepts and does nothing with, or has deprecated; setting it is a warning."""
    return Field(default=None, json_schema_extra={"ignored": reason}, **options)


def field_problems(value: object, path: Path) -> Iterator[Problem]:
    """Every refused (error) or ignored (warning) field set in `value` and below it."""
    if isinstance(value, BaseModel):
        for name, info in type(value).model_fields.items():
            item = getattr(value, name)
            if item is None:
                continue
            where = (*path, info.alias or name)
            extra = info.json_schema_extra
            if isinstance(extra, dict) and "refused" in extra:
                yield Problem(where, f"not supported by the lab: {extra['refused']}")
                continue
            if isinstance(extra, dict) and "ignored" in extra:
                yield Problem(where, str(extra["ignored"]), "warning")
            yield from field_problems(item, where)
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            yield from field_problems(item, (*path, index))
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from field_problems(item, (*path, key))


def parse_duration(value: object) -> timedelta:
    """Returns a duration as Istio's API takes them. Raises ValueError."""
    if isinstance(value, timedelta):
        return value
    if not isinstance(value, str):
        raise ValueError('a duration is a string with a unit, for example "5s" or "100ms"')
    return durations.parse(value)


Duration = Annotated[timedelta, BeforeValidator(parse_duration)]
Port = Annotated[int, Field(strict=True)]
"""A port number; the range is istiod's to check, with its own message."""
Integer = Annotated[int, Field(strict=True)]
Number = Annotated[float, Field(strict=True)]
Text = Annotated[str, StringConstraints(strict=True)]


class Percent(IstioModel):
    value: Number = 0.0


def regex_problem(pattern: str) -> str | None:
    """Why RE2, the engine of Envoy, refuses a pattern; None when it accepts it."""
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
    """A DNS-1123 label, as istiod checks subset and port names."""
    return _LABEL.fullmatch(name) is not None


def host_problem(host: str, *, wildcard: bool = True) -> str | None:
    """Why `host` is no (wildcard) domain name, in istiod's words; None when it is one."""
    if not host:
        return "domain name cannot be empty"
    if len(host) > 255:
        return f'domain name "{host}" too long (max 255)'
    labels = host.removesuffix(".").split(".")
    first, rest = labels[0], labels[1:]
    pattern = _WILDCARD_LABEL if wildcard else _LABEL
    if not pattern.fullmatch(first):
        return f'domain name "{host}" invalid (label "{first}" invalid)'
    for label in rest:
        if not _LABEL.fullmatch(label):
            return f'domain name "{host}" invalid (label "{label}" invalid)'
    return None


def port_problem(port: int) -> str | None:
    return None if 1 <= port <= 65535 else f"port number {port} must be in the range 1..65535"


def export_to_problems(export_to: list[str] | None, path: Path) -> Iterator[Problem]:
    """`exportTo` takes ".", "*", "~" and namespace names; "*" and "~" only alone."""
    for index, name in enumerate(export_to or ()):
        if name not in (".", "*", "~") and not is_dns_label(name):
            yield Problem((*path, index), f'"{name}" is no namespace, ".", "*" or "~"')
    for alone in ("*", "~"):
        if alone in (export_to or ()) and len(export_to or ()) > 1:
            yield Problem(path, f'when "{alone}" is present, exportTo can have no other value')
