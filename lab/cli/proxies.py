"""The proxies of a running lab, and their admin pages."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import httpx

from lab import names
from lab.cli.client import Client, FailureError
from lab.cli.references import chosen_pods


@dataclass(frozen=True, slots=True)
class Proxy:
    """A pod that has a proxy."""

    namespace: str
    name: str
    labels: dict[str, str]
    address: str

    def page(self, path: str, **params: str) -> str:
        """Returns an admin page. Raises FailureError when the proxy doesn't answer."""
        url = f"http://{names.inside(self.address)}:{names.ADMIN_PORT}"
        try:
            answer = httpx.get(f"{url}{path}", params=params, timeout=5)
            answer.raise_for_status()
        except httpx.HTTPError as error:
            raise FailureError(
                f"the proxy of {self.name} does not answer ({error}); see its log: "
                f"guestbook logs {self.name} -c {names.PROXY}"
            ) from None
        return answer.text


def _proxy(pod: dict[str, Any]) -> Proxy | None:
    spec = pod["spec"]
    containers = [*spec.get("initContainers", ()), *spec["containers"]]
    if not any(container["name"] == names.PROXY for container in containers):
        return None
    metadata = pod["metadata"]
    return Proxy(
        metadata["namespace"], metadata["name"], metadata.get("labels", {}), pod["status"]["podIP"]
    )


def everywhere(client: Client) -> list[Proxy]:
    """Returns all proxies of the lab."""
    pods = client.call("objects", kinds=["pods"], namespace=None)["items"]
    return [proxy for pod in pods if (proxy := _proxy(pod)) is not None]


def chosen(client: Client, namespace: str, target: str) -> Proxy:
    """Returns the proxy of a pod, named as in kubectl or as `NAME.NAMESPACE`, istioctl's way.

    Raises FailureError.
    """
    if "." in target and "/" not in target:
        target, _, namespace = target.partition(".")
    pods = chosen_pods(client, namespace, target)
    if not pods:
        raise FailureError(f"no pod matches {target}", missing=True)
    proxy = _proxy(pods[0])
    if proxy is None:
        raise FailureError(f"pod {pods[0]['metadata']['name']} has no {names.PROXY}")
    return proxy
