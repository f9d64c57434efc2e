"""The metadata that every resource carries, with the API server's rules for names and labels."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from lab.resources.resource import Model, Problem

_SUBDOMAIN = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_LABEL = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")
_QUALIFIED = re.compile(r"([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)")
_SPELLED = "lower case letters, digits, '-' and '.', starting and ending with a letter or digit"


class Metadata(Model):
    """The fields of `metadata`.

    The last ones are added by a server: an object printed by `get -o yaml` can be applied again,
    and they are then left out, as the API server does.
    """

    name: str
    namespace: str | None = None
    labels: dict[str, str] | None = None
    annotations: dict[str, str] | None = None
    creation_timestamp: str | None = None
    uid: str | None = None
    resource_version: str | None = None
    generation: int | None = None
    generate_name: str | None = None
    managed_fields: list[Any] | None = None
    owner_references: list[Any] | None = None
    deletion_timestamp: str | None = None
    deletion_grace_period_seconds: int | None = None


def label_problems(labels: Mapping[str, str], path: tuple[str | int, ...]) -> Iterator[Problem]:
    """Yields the keys and values that the API server would refuse as labels."""
    for key, value in labels.items():
        prefix, _, name = key.rpartition("/")
        if len(name) > 63 or not _QUALIFIED.fullmatch(name):
            yield Problem((*path, key), f'"{key}" is not a valid label name')
        if prefix and not _SUBDOMAIN.fullmatch(prefix):
            yield Problem((*path, key), f'"{prefix}" is not a valid DNS name')
        if value and (len(value) > 63 or not _QUALIFIED.fullmatch(value)):
            yield Problem(
                (*path, key),
                f'"{value}" is not a valid label value: at most 63 letters, digits, "-", "_" '
                'and ".", starting and ending with a letter or digit',
            )


TRAFFIC_DISTRIBUTION = "networking.istio.io/traffic-distribution"


def metadata_problems(metadata: Metadata, kind: str) -> Iterator[Problem]:
    """Validates `metadata` as the API server does, and warns of what the lab passes over."""
    if TRAFFIC_DISTRIBUTION in (metadata.annotations or {}):
        reason = "no effect in the lab: set localityLbSetting in a DestinationRule"
        yield Problem(("metadata", "annotations", TRAFFIC_DISTRIBUTION), reason, "warning")
    name = metadata.name
    if kind in ("Service", "Namespace"):
        if len(name) > 63 or not _LABEL.fullmatch(name):
            yield Problem(
                ("metadata", "name"),
                f'"{name}" is not a valid {kind} name: at most 63 lower case letters, digits and '
                '"-", starting with a letter',
            )
    elif len(name) > 253 or not _SUBDOMAIN.fullmatch(name):
        yield Problem(("metadata", "name"), f'"{name}" is not a valid name: {_SPELLED}')
    if metadata.namespace is not None and not _LABEL.fullmatch(metadata.namespace):
        yield Problem(("metadata", "namespace"), f'"{metadata.namespace}" is not a valid name')
    yield from label_problems(metadata.labels or {}, ("metadata", "labels"))
    for key in metadata.annotations or {}:
        if not _QUALIFIED.fullmatch(key.rpartition("/")[2]):
            yield Problem(("metadata", "annotations", key), f'"{key}" is not a valid name')


_INTERNAL = (
    "internal.istio.io/webhook-always-reject",
    "internal.istio.io/parents",
    "internal.istio.io/parent-namespace",
)
DRY_RUN = "istio.io/dry-run"
"""The annotation of an AuthorizationPolicy that is evaluated without effect."""


def internal_annotations(metadata: Metadata, kind: str) -> Iterator[Problem]:
    """Validates the annotations of a resource of Istio's as istiod does."""
    for key in metadata.annotations or {}:
        if key in _INTERNAL:
            reason = f'"{key}" annotation found, this may not be set by users'
            yield Problem(("metadata", "annotations", key), reason)
        elif key == DRY_RUN and kind != "AuthorizationPolicy":
            name = f"{metadata.namespace or 'default'}/{metadata.name}"
            reason = f"{name} has unsupported annotation {key}, please remove the annotation"
            yield Problem(("metadata", "annotations", key), reason)
