"""Drives the Compose project with the `docker` command, as a person would."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pytest

from tests.support.repository import ROOT
from tests.support.wait import wait

ALWAYS = ("ui", "message-service", "guestbook-service", "redis", "mysql")


def require_engine() -> None:
    """Skip, by name and reason, where there is no Docker engine with Compose."""
    if shutil.which("docker") is None:
        pytest.skip("docker is not installed (https://docs.docker.com/engine/install/)")
    for command, missing in (
        (["docker", "info"], "no Docker engine answers"),
        (["docker", "compose", "version"], "docker has no compose plugin"),
    ):
        if subprocess.run(command, capture_output=True, timeout=60).returncode:
            pytest.skip(missing)


def docker(
    *arguments: str,
    check: bool = True,
    timeout: float = 120,
    environment: Mapping[str, str] | None = None,
) -> str:
    """Output of a docker command; its errors in the assertion when it fails."""
    result = subprocess.run(
        ["docker", *arguments],
        capture_output=True,
        text=True,
        timeout=timeout,
        cwd=ROOT,
        env=os.environ | dict(environment or {}),
    )
    assert not check or result.returncode == 0, f"docker {arguments}: {result.stderr}"
    return result.stdout


def stand_ins() -> dict[str, str]:
    """Returns settings for images that this engine has under their tag but not their digest.

    An engine without a registry has public images that were built here under their tags; anywhere
    else this is empty, and what the files pin is pulled.
    """
    compose = (ROOT / "docker-compose.yml").read_text()
    found = dict(re.findall(r"\$\{(\w+_IMAGE):-(\S+)\}", compose))
    dockerfile = (ROOT / "services/Dockerfile").read_text()
    found |= dict(re.findall(r"^ARG (\w+_IMAGE)=(\S+)$", dockerfile, re.M))
    settings = {}
    for variable, pinned in found.items():
        tag, _, digest = pinned.partition("@")
        digests = docker("image", "inspect", "--format={{.RepoDigests}}", tag, check=False).strip()
        if digests == "[]" and digest:
            settings[variable] = tag
    return settings


@dataclass(frozen=True)
class Stack:
    """One Compose project."""

    project: str
    environment: dict[str, str]

    @property
    def url(self) -> str:
        return f"http://localhost:{self.environment['GUESTBOOK_PORT']}"

    def compose(self, *arguments: str, timeout: float = 300, check: bool = True) -> str:
        command = ["compose", "--project-name", self.project, *arguments]
        return docker(*command, check=check, timeout=timeout, environment=self.environment)

    def run(self, script: str) -> str:
        """Run a block of the docs in a shell, as if it stood in this project's folder."""
        result = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", script],
            capture_output=True,
            text=True,
            timeout=300,
            cwd=ROOT,
            env=os.environ | self.environment | {"COMPOSE_PROJECT_NAME": self.project},
        )
        assert result.returncode == 0, f"{script}: {result.stderr}"
        return result.stdout

    def leftovers(self) -> list[str]:
        """Returns the names of this project's containers and networks, running or not."""
        label = f"--filter=label=com.docker.compose.project={self.project}"
        containers = docker("ps", "--all", label, "--format={{.Names}}")
        return (containers + docker("network", "ls", label, "--format={{.Name}}")).split()

    def inspect(self, service: str) -> dict[str, Any]:
        """Returns the engine's description of a service's one container, also when it has ended."""
        container = self.compose("ps", "--all", "--quiet", service).strip()
        details: dict[str, Any] = json.loads(docker("inspect", container))[0]
        return details

    def is_healthy(self, service: str) -> bool:
        state = self.inspect(service)["State"]
        return bool(state["Running"] and state["Health"]["Status"] == "healthy")

    def crash(self, service: str) -> None:
        """Kill the container's process as the kernel would when memory is short.

        `docker kill` would not do: the engine takes that for a person's wish, and leaves the
        container down. So the signal comes from a container that sees the engine's processes.
        """
        details = self.inspect(service)
        # The shell's own kill: the image has no program of that name.
        image = self.inspect("mysql")["Config"]["Image"]
        helper = ["run", "--rm", "--pid=host", "--user=0", "--entrypoint=bash", image]
        docker(*helper, "-c", f"kill -KILL {details['State']['Pid']}")

        def restarted() -> bool:
            now = self.inspect(service)
            return now["RestartCount"] > details["RestartCount"] and self.is_healthy(service)

        wait(restarted, f"the restart of {service}", 120)

    def stored(self) -> list[str]:
        """Every message in the guestbook, asked of the guestbook service page by page."""
        script = (
            "import json, urllib.request as r\n"
            "page = pages = 0\n"
            "while page <= pages:\n"
            "    body = json.load(r.urlopen(f'http://127.0.0.1:8080/api/messages?size=1000&page={page}'))\n"
            "    print(*(m['message'] for m in body['_embedded']['messages']), sep='\\n')\n"
            "    page, pages = page + 1, body['page']['totalPages'] - 1\n"
        )
        listed = self.compose("exec", "-T", "guestbook-service", "python", "-c", script)
        return [line for line in listed.splitlines() if line]
