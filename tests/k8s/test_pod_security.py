"""Every pod meets the restricted Pod Security Standard, and a bit more."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.k8s.manifests import K8S, KUSTOMIZATIONS, kustomize, pods
from tests.k8s.pod_security import RULES, violations


@pytest.mark.parametrize("folder", KUSTOMIZATIONS)
def test_pods_are_restricted(folder: str) -> None:
    found = dict(pods(kustomize(K8S / folder)))
    assert set(found) == {"ui", "message-service", "guestbook-service", "redis", "mysql"}
    broken = {name: list(violations(pod["spec"])) for name, pod in found.items()}
    assert not any(broken.values()), broken


_BREAKS: dict[str, Callable[[dict[str, Any], dict[str, Any]], object]] = {
    "hostNetwork, hostPID and hostIPC are off": lambda p, c: p.update(hostPID=True),
    "not privileged": lambda p, c: c["securityContext"].update(privileged=True),
    "drops ALL capabilities, adds NET_BIND_SERVICE at most": lambda p, c: c["securityContext"][
        "capabilities"
    ].update(add=["NET_ADMIN"]),
    "only harmless kinds of volumes": lambda p, c: p.update(
        volumes=[{"name": "etc", "hostPath": {"path": "/etc"}}]
    ),
    "no host ports": lambda p, c: c["ports"][0].update(hostPort=80),
    "/proc is masked": lambda p, c: c["securityContext"].update(procMount="Unmasked"),
    "SELinux and AppArmor are the defaults": lambda p, c: p["securityContext"].update(
        seLinuxOptions={"type": "spc_t"}
    ),
    "only safe sysctls": lambda p, c: p["securityContext"].update(
        sysctls=[{"name": "kernel.msgmax", "value": "1"}]
    ),
    "no privilege escalation": lambda p, c: c["securityContext"].pop("allowPrivilegeEscalation"),
    "runAsNonRoot": lambda p, c: p["securityContext"].pop("runAsNonRoot"),
    "a numeric user that is not root": lambda p, c: p["securityContext"].update(runAsUser=0),
    "a seccomp profile": lambda p, c: p["securityContext"].pop("seccompProfile"),
    "a read-only root file system": lambda p, c: c["securityContext"].pop("readOnlyRootFilesystem"),
    "no API token": lambda p, c: p.pop("automountServiceAccountToken"),
}


@pytest.mark.parametrize("rule", RULES)
def test_a_broken_rule_is_found(rule: str) -> None:
    spec = dict(pods(kustomize(K8S / "base")))["ui"]["spec"]
    _BREAKS[rule](spec, spec["containers"][0])
    assert list(violations(spec)) == [f"ui: {rule}"]
