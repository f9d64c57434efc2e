"""Whether this machine lets an ordinary user have namespaces; if not, what refused and what helps.

It is found out by doing it, in a forked child: versions and settings say too little.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path

from lab.net import namespaces, netlink
from lab.net.namespaces import BIND, Network
from lab.net.node import Node, ServicePort, intercept, node_rules


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why pods can have no networks here."""

    reason: str
    """The step and the kernel's error, such as `mount: Permission denied`."""
    help: str
    """The remedy, in one line."""


def refusal() -> Refusal | None:
    """Returns what this machine refuses; None where pods can have networks.

    To be called in a process that has one thread, like everything that forks.
    """
    if sys.platform != "linux":
        return Refusal("user namespace: only Linux has them", "the repository's dev container")
    reader, writer = os.pipe()
    if (child := os.fork()) == 0:
        status = 0
        try:
            os.close(reader)
            os.write(writer, try_all().encode())
        except BaseException:  # The child must not return into its parent's program.
            status = 1
        finally:
            os._exit(status)
    os.close(writer)
    with os.fdopen(reader) as pipe:
        reason = pipe.read()
    ended = os.waitpid(child, 0)[1]
    if ended and not reason:
        reason = f"the trial ended with {ended}"
    return Refusal(reason, advice(reason, Path("/"))) if reason else None


def try_all() -> str:
    """Makes a node with a pod in this process; returns the step that was refused."""
    step = "user namespace"
    try:
        namespaces.become_master()
        step = "mount"
        namespaces.mount("/etc", "/etc", flags=BIND)
        step = "network namespace"
        node, pod = Node(), Network()
        step = "cable between networks (veth)"
        node.attach(pod, "10.244.0.10")
        step = "nftables rules"
        ports = [ServicePort("10.96.0.30", 80, (("10.244.0.10", 80), ("10.244.0.11", 80)))]
        netlink.send(node.network.rules, netlink.table("kube-proxy", node_rules(ports)))
        intercept(pod)
        step = "list of sockets (inet_diag)"
        netlink.listening(pod.sockets)
    except OSError as error:
        return f"{step}: {os.strerror(error.errno or 0)}"
    return ""


_UBUNTU = "proc/sys/kernel/apparmor_restrict_unprivileged_userns"
_LIMITS = ("max_user_namespaces", "max_net_namespaces")


def advice(reason: str, root: Path) -> str:
    """Returns the line that helps where `reason` was refused; `root` has the machine's files."""

    def text(name: str) -> str:
        try:
            return (root / name).read_text(encoding="utf-8").strip()
        except OSError:
            return ""

    contained = any((root / name).exists() for name in (".dockerenv", "run/.containerenv"))
    filtered = "Seccomp:\t0" not in text("proc/self/status")
    if contained and (filtered or text("proc/self/attr/current") not in ("", "unconfined")):
        flags = ("seccomp=unconfined", "apparmor=unconfined")
        return "docker run " + " ".join(f"--security-opt {flag}" for flag in flags)
    if text(_UBUNTU) == "1":
        return f"sudo sysctl -w {_UBUNTU.removeprefix('proc/sys/').replace('/', '.')}=0"
    for limit in _LIMITS:
        if text(f"proc/sys/user/{limit}") == "0":
            return f"sudo sysctl -w user.{limit}=10000"
    if text("proc/sys/kernel/unprivileged_userns_clone") == "0":
        return "sudo sysctl -w kernel.unprivileged_userns_clone=1"
    if "microsoft" in text("proc/version").lower():
        return "wsl --update"
    if any(word in reason for word in ("nftables", "veth", "inet_diag")):
        return "sudo modprobe -a veth nf_tables nft_redir nft_masq nft_nat nft_numgen tcp_diag"
    return "the machine's administrator can allow user namespaces"
