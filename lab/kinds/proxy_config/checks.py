"""Checks of a ProxyConfig: fields without effect in the lab."""

from __future__ import annotations

from lab.kinds.mesh_config.checks import ONE_THREAD, metadata_problems
from lab.kinds.proxy_config.types import ProxyConfig
from lab.kinds.selection import SELECTOR
from lab.resources.checks import warned
from lab.resources.istio import kind
from lab.resources.resource import Check

CHECKS = (
    warned("spec.concurrency", ONE_THREAD),
    warned("spec.image.imageType", "the lab pulls no images"),
    Check("spec.concurrency", lambda threads: threads >= 0, "it must not be negative"),
    Check("spec.environmentVariables", metadata_problems),
    *SELECTOR,
)

KINDS = (kind("ProxyConfig", ProxyConfig, CHECKS),)
