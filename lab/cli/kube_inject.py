"""kube-inject: manifests with the sidecar that injection adds."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from lab.cli import manifests
from lab.cli.output import write, yaml_text


def kube_inject(
    filename: Annotated[list[str], typer.Option("--filename", "-f", help="A file, folder or -.")],
) -> None:
    """Print manifests with the sidecar in them, as `istioctl kube-inject` does.

    The sidecar is an init container that keeps running (a native sidecar).
    Not needed in namespaces with the label istio-injection=enabled: there
    pods are injected when they are created.

    Example:
      guestbook kube-inject -f k8s/base/ui-deployment.yaml | guestbook apply -f -
    """
    from lab.manifests.load import parse
    from lab.resources.document import documents

    texts = manifests.texts(filename)
    with manifests.errors():
        parse(texts)
    shown = [_injected(found.value) for _, text in texts for found in documents(text)]
    write("\n---\n".join(yaml_text(value) for value in shown))


def _injected(manifest: Any) -> Any:
    """Returns a manifest with the sidecar in its pod's specification, if it has one."""
    if manifest.get("kind") == "List":
        return manifest | {"items": [_injected(item) for item in manifest["items"]]}
    if manifest.get("kind") == "Pod":
        return manifest | {"spec": _with_sidecar(manifest["spec"])}
    if manifest.get("kind") in ("Deployment", "StatefulSet"):
        spec = manifest["spec"]
        template = spec["template"] | {"spec": _with_sidecar(spec["template"]["spec"])}
        return manifest | {"spec": spec | {"template": template}}
    return manifest


def _with_sidecar(spec: dict[str, Any]) -> dict[str, Any]:
    from lab.cluster.programs import SIDECAR

    if spec.get("initContainers"):
        return spec
    return {"initContainers": [SIDECAR]} | spec
