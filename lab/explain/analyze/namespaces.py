"""Namespaces: their labels about injection, and pods without the sidecar that they ask for."""

from __future__ import annotations

from collections.abc import Iterator

from lab.explain.analyze.finding import Finding, about
from lab.model import Snapshot

_INJECTION = "istio-injection"
_OTHERS = ("istio.io/rev", "istio.io/dataplane-mode")
_INJECT = "sidecar.istio.io/inject"
_KUBERNETES = ("kube-system", "kube-public", "kube-node-lease", "local-path-storage")


def injection(snapshot: Snapshot) -> Iterator[Finding]:
    """Yields namespaces without a label about injection (IST0102), or with several (IST0123)."""
    for namespace in snapshot.of("Namespace"):
        name, wish = namespace.name, namespace.labels.get(_INJECTION)
        if name in (snapshot.root_namespace, *_KUBERNETES):
            continue
        others = [key for key in _OTHERS if key in namespace.labels]
        found = [key for key in (_INJECTION, *others) if key in namespace.labels]
        if len(found) > 1 and wish in (None, "enabled"):
            shown = " ".join(f"{key}={namespace.labels[key]}" for key in found)
            text = (
                f"The namespace has more than one type of injection labels [{shown}], which may "
                "lead to undefined behavior. Make sure only one injection label exists."
            )
            yield about("IST0123", namespace, text, "metadata", "labels")
        ambient = namespace.labels.get("istio.io/dataplane-mode") == "ambient"
        if not wish and "istio.io/rev" not in namespace.labels and not ambient:
            text = (
                "The namespace is not enabled for Istio injection. Run 'kubectl label namespace "
                f"{name} istio-injection=enabled' to enable it, or 'kubectl label namespace {name} "
                "istio-injection=disabled' to explicitly mark it as not needing injection."
            )
            yield about("IST0102", namespace, text, "metadata", "name")


def without_proxy(snapshot: Snapshot) -> Iterator[Finding]:
    """Yields pods without a sidecar where the namespace asks for one (IST0103)."""
    injected = {
        item.name for item in snapshot.of("Namespace") if item.labels.get(_INJECTION) == "enabled"
    }
    for pod in snapshot.pods:
        wish = pod.labels.get(_INJECT, pod.annotations.get(_INJECT, ""))
        if pod.proxy == "none" and pod.namespace in injected and wish.lower() != "false":
            text = (
                f"The pod {pod.namespace}/{pod.name} is missing the Istio proxy. This can often "
                "be resolved by restarting or redeploying the workload."
            )
            yield Finding("IST0103", "Pod", pod.namespace, pod.name, text)
