"""Detection: the step that is refused, and the line that helps."""

from __future__ import annotations

from pathlib import Path

import pytest

from lab.net import detect, namespaces
from tests.support.namespaces import isolated, require_namespaces

UBUNTU = "proc/sys/kernel/apparmor_restrict_unprivileged_userns"
DOCKER = "docker run --security-opt seccomp=unconfined --security-opt apparmor=unconfined"


@pytest.mark.parametrize(
    ("files", "line"),
    [
        ({".dockerenv": ""}, DOCKER),
        (
            {
                "run/.containerenv": "",
                "proc/self/status": "Seccomp:\t0\n",
                "proc/self/attr/current": "unconfined\n",
                UBUNTU: "1\n",
            },
            "sudo sysctl -w kernel.apparmor_restrict_unprivileged_userns=0",
        ),
        (
            {UBUNTU: "1\n"},
            "sudo sysctl -w kernel.apparmor_restrict_unprivileged_userns=0",
        ),
        (
            {"proc/sys/user/max_user_namespaces": "0\n"},
            "sudo sysctl -w user.max_user_namespaces=10000",
        ),
        ({"proc/version": "Linux version 5.10-microsoft-standard-WSL2"}, "wsl --update"),
        ({}, "the machine's administrator can allow user namespaces"),
    ],
)
def test_the_advice_is_one_line(tmp_path: Path, files: dict[str, str], line: str) -> None:
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    assert detect.advice("user namespace: Operation not permitted", tmp_path) == line


def test_a_missing_module_is_named(tmp_path: Path) -> None:
    assert "nft_redir" in detect.advice("nftables rules: No such file or directory", tmp_path)


def test_a_limit_of_the_machine_is_found_by_trying() -> None:
    """In a user namespace whose limit is 0, as an administrator may set it."""

    def refused() -> str:
        namespaces.become_master()
        Path("/proc/sys/user/max_net_namespaces").write_text("0")
        found = detect.refusal()
        return found.reason if found is not None else ""

    assert isolated(refused) == "network namespace: No space left on device"


def test_trying_leaves_this_process_where_it_was() -> None:
    before = [Path(f"/proc/self/ns/{kind}").readlink() for kind in ("user", "mnt", "net")]
    require_namespaces()
    assert detect.refusal() is None
    assert [Path(f"/proc/self/ns/{kind}").readlink() for kind in ("user", "mnt", "net")] == before
