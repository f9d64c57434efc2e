"""The proxies of a running lab, and their admin pages."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import httpx

from lab import names
from lab.cli.client import Client, FailureError
from lab.cli.references import chosen_pods
from lab.cluster.state import State
from lab.istiod.process import admin
from lab.istiod.proxy_files import SENT_FILE, read


@dataclass(frozen=True, slots=True)
class Proxy:
    """A pod that has a proxy."""

    namespace: str
    name: str
    labels: dict[str, str]
    folder: Path
    kind: Literal["gateway", "sidecar"]

    def sent(self) -> dict[str, Any]:
        """Returns the configuration as istiod sends it; empty when the proxy has none."""
        found: dict[str, Any] = json.loads(read(self.folder / SENT_FILE) or "{}")
        return found

    def page(self, path: str, **params: str) -> str:
        """Returns an admin page. Raises FailureError when the proxy doesn't answer."""
        return self._answer("GET", path, params)

    def loggers(self, **levels: str) -> str:
        """Returns the levels of the loggers, as Envoy prints them; sets those given.

        Raises FailureError when the proxy doesn't answer.
        """
        return self._answer("POST", "/logging", levels)

    def _answer(self, method: str, path: str, params: Mapping[str, str]) -> str:
        try:
            with admin(self.folder, 5) as client:
                answer = client.request(method, path, params=params).raise_for_status()
        except (OSError, httpx.HTTPError) as error:
            raise FailureError(
                f"the proxy of {self.name} does not answer ({error}); see its log: "
                f"guestbook logs {self.name} -c {names.PROXY}"
            ) from None
        return answer.text


def _proxy(lab: Client, pod: dict[str, Any]) -> Proxy | None:
    spec = pod["spec"]
    containers = [*spec.get("initContainers", ()), *spec["containers"]]
    if not any(container["name"] == names.PROXY for container in containers):
        return None
    metadata = pod["metadata"]
    namespace, name = metadata["namespace"], metadata["name"]
    folder = State(lab.folder).pods / namespace / name / names.PROXY
    alone = [container["name"] for container in spec["containers"]] == [names.PROXY]
    kind: Literal["gateway", "sidecar"] = "gateway" if alone else "sidecar"
    return Proxy(namespace, name, metadata.get("labels", {}), folder, kind)


def everywhere(client: Client) -> list[Proxy]:
    """Returns all proxies of the lab."""
    pods = client.call("objects", kinds=["pods"], namespace=None)["items"]
    return [proxy for pod in pods if (proxy := _proxy(client, pod)) is not None]


def chosen(client: Client, namespace: str, target: str, selector: str = "") -> list[Proxy]:
    """Returns the proxies of the pods behind a name, the ready ones first.

    It is named as in kubectl or as `NAME.NAMESPACE`, istioctl's way. Raises FailureError.
    """
    name, dot, place = target.rpartition(".")
    if dot:
        target, namespace = name, place
    found = []
    for pod in chosen_pods(client, namespace, target, selector):
        proxy = _proxy(client, pod)
        if proxy is None:
            raise FailureError(f"pod {pod['metadata']['name']} has no {names.PROXY}")
        found.append(proxy)
    if not found:
        raise FailureError(f"no pod matches {target or selector}")
    return found
