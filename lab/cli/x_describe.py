"""`guestbook x describe`: a pod or a Service in the mesh."""

from __future__ import annotations

from typing import Annotated

import typer

from lab.cli.client import FailureError
from lab.cli.context import Files, Namespace, namespace
from lab.cli.output import write
from lab.cli.route import caller, mesh


def x_describe(
    context: typer.Context,
    kind: Annotated[str, typer.Argument(metavar="pod|svc", show_default=False)],
    name: Annotated[str, typer.Argument(metavar="NAME[.NAMESPACE]", show_default=False)],
    filename: Files = None,
    namespace_: Namespace = None,
) -> None:
    """Say which Istio resources apply to a pod or a Service.

    As `istioctl x describe` has it: Services, DestinationRules with the subsets
    that the pod is in, VirtualServices with their routes, the mode of mutual
    TLS, policies, and the gateways that lead to it; with file and line.

    Examples:
      guestbook x describe pod ui-7d5c9b7f4-x2x8k
      guestbook x describe svc message-service
      guestbook x describe svc ui -f k8s/base -f istio/02-ingress
    """
    from lab.explain import describe

    snapshot = mesh(context, filename)
    where = namespace(context, namespace_)
    if kind in ("pod", "pods", "po"):
        short, _, other = name.partition(".")
        lines = describe.pod(snapshot, caller(snapshot, short, other or where))
    elif kind in ("svc", "service", "services"):
        short, _, other = name.partition(".")
        found = [s for s in snapshot.services if (s.namespace, s.name) == (other or where, short)]
        if not found:
            raise FailureError(f'services "{short}" not found', missing=True)
        lines = describe.service(snapshot, found[0])
    else:
        raise FailureError(f"unknown resource type {kind!r}: pod or svc")
    write("\n".join(lines))
