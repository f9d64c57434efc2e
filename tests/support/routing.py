"""Manifests and requests of the tests of routing: subsets, routes and a DestinationRule."""

from __future__ import annotations

import textwrap

from tests.support.harness import Mesh

SUBSETS = """
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: server}
spec:
  host: server
  subsets:
  - {name: v1, labels: {version: "1.0"}}
  - {name: v2, labels: {version: "2.0"}}
---
"""
V1 = "route: [{destination: {host: server, subset: v1}}]"
V2 = "route: [{destination: {host: server, subset: v2}}]"


def routed(http: str, name: str = "server", spec: str = "") -> str:
    """Subsets v1 and v2 and a VirtualService with these `http` routes."""
    return (
        f"{SUBSETS}apiVersion: networking.istio.io/v1\nkind: VirtualService\n"
        f"metadata: {{name: {name}}}\nspec:\n  hosts: [server]\n{textwrap.indent(spec, '  ')}"
        f"  http:\n{textwrap.indent(textwrap.dedent(http).strip(), '  ')}\n---\n"
    )


def version(mesh: Mesh, path: str = "/", method: str = "GET", **headers: str) -> str:
    """Returns the number of the version that answers, or the status when none does."""
    reply = mesh.request("client", f"http://server{path}", method=method, headers=headers)
    return str(reply.json()["version"]) if reply.status_code == 200 else str(reply.status_code)


def rule(policy: str = "", *, host: str = "server", name: str = "server", rest: str = "") -> str:
    """A DestinationRule with this `trafficPolicy`."""
    body = f"  trafficPolicy:\n{textwrap.indent(textwrap.dedent(policy).strip(), '    ')}\n"
    return (
        "apiVersion: networking.istio.io/v1\nkind: DestinationRule\n"
        f"metadata: {{name: {name}}}\nspec:\n  host: {host}\n"
        f"{body if policy else ''}{textwrap.indent(textwrap.dedent(rest).strip(), '  ')}\n---\n"
    )


def attempts(mesh: Mesh, pod: str = "server-v1") -> int:
    """Returns the number of requests that a pod received."""
    server = mesh.pods[pod].server
    assert server is not None
    return len(server.received)
