"""The configuration of the rate limit service: a domain and nested descriptors in YAML files.

The format is that of envoyproxy/ratelimit, whose image the stand-in plays.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

Unit = Literal["second", "minute", "hour", "day"]

Entry = tuple[str, str]
"""One key and value of a descriptor that a proxy sends."""


class ConfigError(Exception):
    """A file is no configuration; the message names it and the field."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Limit(_Strict):
    """`unlimited`, or a number of requests in each unit of the clock."""

    unit: Annotated[Unit | None, Field(default=None)]
    requests_per_unit: Annotated[int, Field(ge=0, le=2**32 - 1, default=0)]
    unlimited: bool = False
    name: str = ""


class Descriptor(_Strict):
    key: Annotated[str, Field(min_length=1)]
    value: str = ""
    rate_limit: Limit | None = None
    shadow_mode: bool = False
    descriptors: tuple[Descriptor, ...] = ()
    detailed_metric: bool = False
    """Accepted: the stand-in's statistics always tell values apart."""


class Domain(_Strict):
    domain: Annotated[str, Field(min_length=1)]
    descriptors: tuple[Descriptor, ...] = ()


@dataclass(frozen=True, slots=True)
class Rule:
    """The limit for a descriptor, and the name it has in the statistics."""

    limit: Limit
    shadow_mode: bool
    name: str


Config = Mapping[str, Domain]
"""The domains by name."""


def find(config: Config, domain: str, entries: Sequence[Entry]) -> Rule | None:
    """Returns the limit to which a descriptor's entries lead, from the first to the last."""
    chosen: Domain | Descriptor | None = config.get(domain)
    name = domain
    for key, value in entries:
        chosen = _choose(chosen.descriptors, key, value) if chosen is not None else None
        if chosen is None:
            return None
        name += _suffix(chosen)
    if not isinstance(chosen, Descriptor) or chosen.rate_limit is None:
        return None
    return Rule(chosen.rate_limit, chosen.shadow_mode, name)


def _suffix(descriptor: Descriptor) -> str:
    """Returns the part of a name in the statistics that a descriptor adds to its parent's."""
    return f".{descriptor.key}" + (f"_{descriptor.value}" if descriptor.value else "")


def _choose(level: Iterable[Descriptor], key: str, value: str) -> Descriptor | None:
    """Returns the descriptor with exactly this value, else a prefix `a*` of it, else no value."""
    same_key = [found for found in level if found.key == key]
    for found in same_key:
        if found.value and found.value == value:
            return found
    for found in same_key:
        if found.value.endswith("*") and value.startswith(found.value[:-1]):
            return found
    return next((found for found in same_key if not found.value), None)


def files(folder: Path) -> list[Path]:
    """Returns the configuration files in a folder, without those with a leading dot."""
    return sorted(
        file for file in folder.glob("*.yaml") if file.is_file() and not file.name.startswith(".")
    )


def load(folder: Path) -> Config:
    """Returns the configuration in a folder. Raises ConfigError."""
    domains: dict[str, Domain] = {}
    for file in files(folder):
        try:
            document = yaml.safe_load(file.read_text())
            domain = Domain.model_validate(document)
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            raise ConfigError(f"{file}: {error}") from error
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(str(part) for part in first["loc"])
            raise ConfigError(f"{file}: {place}: {first['msg']}") from error
        if domain.domain in domains:
            raise ConfigError(f"{file}: duplicate domain '{domain.domain}' in config file")
        _check(domain.descriptors, domain.domain, file)
        domains[domain.domain] = domain
    return domains


def _check(level: Sequence[Descriptor], path: str, file: Path) -> None:
    seen: set[Entry] = set()
    for found in level:
        name = path + _suffix(found)
        if (found.key, found.value) in seen:
            raise ConfigError(f"{file}: duplicate descriptor composite key '{name}'")
        seen.add((found.key, found.value))
        limit = found.rate_limit
        if limit is not None and limit.unlimited == (limit.unit is not None):
            raise ConfigError(
                f"{file}: {name}: a rate_limit has a unit (second, minute, hour, day), "
                "or unlimited: true"
            )
        _check(found.descriptors, name, file)
