"""The Pod Security Standard "restricted", as a table of rules over a pod's spec.

Source: https://kubernetes.io/docs/concepts/security/pod-security-standards/ (what is not relevant
to these pods, such as Windows options and AppArmor, is left out: the fields may not appear at all).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

Spec = dict[str, Any]
Rule = Callable[[Spec, Spec], bool]

_VOLUMES = {
    "configMap",
    "csi",
    "downwardAPI",
    "emptyDir",
    "ephemeral",
    "persistentVolumeClaim",
    "projected",
    "secret",
}
_SYSCTLS = {
    "kernel.shm_rmid_forced",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.tcp_syncookies",
    "net.ipv4.ping_group_range",
}


def _either(pod: Spec, container: Spec, field: str) -> Any:
    """A security setting of the container, else of its pod."""
    own = container.get("securityContext", {})
    return own.get(field, pod.get("securityContext", {}).get(field))


RULES: dict[str, Rule] = {
    "hostNetwork, hostPID and hostIPC are off": lambda pod, _: (
        not any(pod.get(field) for field in ("hostNetwork", "hostPID", "hostIPC"))
    ),
    "not privileged": lambda _, c: not c.get("securityContext", {}).get("privileged"),
    "drops ALL capabilities, adds NET_BIND_SERVICE at most": lambda _, c: (
        c.get("securityContext", {}).get("capabilities", {}).get("drop") == ["ALL"]
        and set(c["securityContext"]["capabilities"].get("add", [])) <= {"NET_BIND_SERVICE"}
    ),
    "only harmless kinds of volumes": lambda pod, _: all(
        set(volume) - {"name"} <= _VOLUMES for volume in pod.get("volumes", [])
    ),
    "no host ports": lambda _, c: not any(port.get("hostPort") for port in c.get("ports", [])),
    "/proc is masked": lambda _, c: "procMount" not in c.get("securityContext", {}),
    "SELinux and AppArmor are the defaults": lambda pod, c: (
        not any(
            _either(pod, c, field)
            for field in ("seLinuxOptions", "appArmorProfile", "windowsOptions")
        )
    ),
    "only safe sysctls": lambda pod, _: all(
        sysctl["name"] in _SYSCTLS for sysctl in pod.get("securityContext", {}).get("sysctls", [])
    ),
    "no privilege escalation": lambda _, c: (
        c.get("securityContext", {}).get("allowPrivilegeEscalation") is False
    ),
    "runAsNonRoot": lambda pod, c: _either(pod, c, "runAsNonRoot") is True,
    "a numeric user that is not root": lambda pod, c: (_either(pod, c, "runAsUser") or 0) > 0,
    "a seccomp profile": lambda pod, c: (
        (_either(pod, c, "seccompProfile") or {}).get("type") in ("RuntimeDefault", "Localhost")
    ),
    # Beyond the standard:
    "a read-only root file system": lambda _, c: (
        c.get("securityContext", {}).get("readOnlyRootFilesystem") is True
    ),
    "no API token": lambda pod, _: pod.get("automountServiceAccountToken") is False,
}


def violations(pod: Spec) -> Iterator[str]:
    """The rules that a pod spec breaks, with the container's name."""
    for container in [*pod.get("initContainers", []), *pod["containers"]]:
        for rule, kept in RULES.items():
            if not kept(pod, container):
                yield f"{container['name']}: {rule}"
