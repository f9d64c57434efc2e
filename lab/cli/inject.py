"""kube-inject: what the injection of a sidecar adds to a manifest."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from lab.cli.client import FailureError
from lab.cli.output import write, yaml_text
from lab.cluster.programs import SIDECAR


def register(app: typer.Typer) -> None:
    app.command(name="kube-inject")(kube_inject)


def kube_inject(
    filename: Annotated[list[str], typer.Option("--filename", "-f", help="A file, folder or -.")],
) -> None:
    """Print manifests with the sidecar in them, as `istioctl kube-inject` does.

    The sidecar is an init container that keeps running (a native sidecar).
    Namespaces with the label istio-injection=enabled need this not: there it
    happens when a pod is created.

    Example:
      guestbook kube-inject -f k8s/base/ui-deployment.yaml | guestbook apply -f -
    """
    from lab.manifests.load import ManifestError, parse, read
    from lab.resources.document import documents

    try:
        texts = [text for name in filename for text in read(name)]
        parse(texts)
    except ManifestError as error:
        raise FailureError(*error.lines) from None
    shown = [injected(found.value) for _, text in texts for found in documents(text)]
    write("\n---\n".join(yaml_text(value) for value in shown))


def injected(manifest: Any) -> Any:
    """A manifest with the sidecar in its pod's specification, if it has one."""
    if manifest.get("kind") == "List":
        return manifest | {"items": [injected(item) for item in manifest["items"]]}
    if manifest.get("kind") == "Pod":
        return manifest | {"spec": _with_sidecar(manifest["spec"])}
    if manifest.get("kind") in ("Deployment", "StatefulSet"):
        spec = manifest["spec"]
        template = spec["template"] | {"spec": _with_sidecar(spec["template"]["spec"])}
        return manifest | {"spec": spec | {"template": template}}
    return manifest


def _with_sidecar(spec: dict[str, Any]) -> dict[str, Any]:
    if spec.get("initContainers"):
        return spec
    return {"initContainers": [SIDECAR]} | spec
