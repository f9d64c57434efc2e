"""`guestbook route`: the configuration that a request would meet, without sending it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lab.cli.client import Client, FailureError
from lab.cli.context import Files, Namespace, asked_namespace, settings
from lab.cli.output import for_lab

if TYPE_CHECKING:
    from lab.explain.steps import Explanation, Step, Target
    from lab.model import Pod, Snapshot
    from lab.resources.resource import Resource

GATEWAY = "ingress"


def route(
    context: typer.Context,
    request: Annotated[
        list[str],
        typer.Argument(metavar="[METHOD] URL", help="For example GET http://ui/; also tcp://."),
    ],
    method: Annotated[
        str, typer.Option("--request", "-X", metavar="METHOD", help="The method, as curl has it.")
    ] = "",
    source: Annotated[
        str,
        typer.Option(
            "--from",
            help="The client: a pod, a Deployment or an app label; `ingress` is one outside.",
        ),
    ] = GATEWAY,
    header: Annotated[
        list[str] | None,
        typer.Option("--header", "-H", metavar="'NAME: VALUE'", help="A header, also a token."),
    ] = None,
    claim: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=VALUE", help="A claim, in place of a valid token."),
    ] = None,
    filename: Files = None,
    output: Annotated[str, typer.Option("--output", "-o", help="text or json.")] = "text",
    namespace: Namespace = None,
) -> None:
    """Show the listener, route, fault, subset, retry, mirror and policies a request would meet.

    Nothing is sent, and with -f no lab has to run: a mesh configuration can
    be tested like code. Each step names the file and the line that it comes
    from. The exit status is 0 when the request would be forwarded, and 1 when
    a proxy would answer it or refuse it, also for a share of a split.

    Examples:
      guestbook route GET http://localhost/ -H 'user-agent: Chrome/140'
      guestbook route --from ui http://message-service/hello/x
      guestbook route --from ui http://message-service/hello/x -f k8s/base -f istio/05-retries
      guestbook route http://localhost/ -H "Authorization: Bearer $(guestbook token)"
      guestbook route --from ui tcp://redis:6379 -o json
    """
    from lab.explain import request as explain
    from lab.explain.interpret.matchers import NoAnswerError

    if output not in ("text", "json"):
        raise FailureError(f"unknown output {output}: text or json")
    method, url = _request([method, *request] if method else request)
    snapshot = mesh(context, filename)
    pod = caller(snapshot, source, asked_namespace(context, namespace))
    try:
        found = explain.explain(
            snapshot, pod, method, url, _pairs(header, ":"), dict(_claims(claim)) or None
        )
    except NoAnswerError as error:
        raise FailureError(str(error)) from None
    if output == "json":
        typer.echo(json.dumps({"from": f"{pod.namespace}/{pod.name}", **found.json()}, indent=2))
    else:
        _print(pod, method, url, found)
    if found.outcome != "forwarded":
        raise typer.Exit(1)


def mesh(context: typer.Context, files: Sequence[str] | None) -> Snapshot:
    """Returns the mesh of manifests alone, or else that of the lab, running or not."""
    from lab.cluster import snapshots

    if files:
        return snapshots.snapshot(from_files(files))
    lab = settings(context)
    running = running_objects(lab.client())
    found = snapshots.snapshot(from_lab(lab.state_folder()), running=running)
    return found if running is None else _as_run(found, running, lab.client())


def _request(words: Sequence[str]) -> tuple[str, str]:
    if len(words) == 1:
        return "GET", words[0]
    if len(words) == 2:
        return words[0], words[1]
    raise FailureError("a request is [METHOD] URL, for example GET http://ui/")


def _pairs(values: Sequence[str] | None, separator: str) -> list[tuple[str, str]]:
    pairs: list[tuple[str, str]] = []
    for value in values or ():
        name, found, rest = value.partition(separator)
        if not found or not name.strip():
            raise FailureError(f"{value!r} is not NAME{separator} VALUE")
        pairs.append((name.strip(), rest.strip()))
    return pairs


def _claims(values: Sequence[str] | None) -> list[tuple[str, object]]:
    claims: list[tuple[str, object]] = []
    for name, text in _pairs(values, "="):
        try:
            claims.append((name, json.loads(text)))
        except ValueError:
            claims.append((name, text))
    return claims


def from_files(names: Sequence[str], *, gateway: bool = True) -> list[Resource]:
    """Returns the resources of manifests; with `gateway` Istio's own unless they have one."""
    from lab.manifests import load
    from lab.manifests.read import ManifestError

    try:
        resources = list(load.load(names, running=False).resources)
    except ManifestError as error:
        raise FailureError(*error.lines) from None
    if gateway and not any(r.kind == "Deployment" and r.labels.get("istio") for r in resources):
        builtin = Path(__file__).parents[1] / "cluster" / "gateway.yaml"
        resources += load.load([str(builtin)]).resources
    return resources


def from_lab(folder: Path) -> list[Resource]:
    """Returns the resources applied in the lab of a state folder, running or not."""
    from lab.cluster.state import State
    from lab.cluster.store import Store

    store = Store(State(folder).resources)
    for problem in store.restore():
        raise FailureError(problem)
    resources = [record.resource for record in store.all()]
    if not resources:
        raise FailureError(
            f"no lab in {folder}: start one with `{for_lab(folder, 'up')}`, "
            "or give the manifests with -f"
        )
    return sorted(resources, key=lambda resource: resource.order)


def running_objects(lab: Client) -> list[dict[str, Any]] | None:
    """Returns the pods and Services of a running lab as JSON; None when it does not run."""
    kinds = ["pods", "services"]
    try:
        items: list[dict[str, Any]] = lab.call("objects", kinds=kinds, namespace=None)["items"]
    except FailureError:
        return None
    return items


def _as_run(snapshot: Snapshot, running: Sequence[Mapping[str, Any]], lab: Client) -> Snapshot:
    """The same mesh as it runs: published ports of gateways, visitors' address, fetched keys."""
    from dataclasses import replace

    from lab.kinds.services import published
    from lab.model import LOOPBACK, Service

    node_ports = {
        (item["metadata"]["namespace"], item["metadata"]["name"], port["port"]): port["nodePort"]
        for item in running
        for port in item["spec"].get("ports", ())
        if "nodePort" in port
    }

    def node_port(service: Service, port: int) -> int | None:
        return node_ports.get((service.namespace, service.name, port))

    pods = (
        replace(pod, published=published(snapshot.services, pod, node_port))
        if pod.proxy == "gateway"
        else pod
        for pod in snapshot.pods
    )
    status = lab.call("status")
    outside = LOOPBACK if status["network"] == "proxy" else snapshot.outside
    keys = lab.call("key_sets")
    return replace(snapshot, pods=tuple(pods), outside=outside, jwks=keys)


def caller(snapshot: Snapshot, name: str, namespace: str | None) -> Pod:
    """Returns the pod of a pod's, a workload's or an app's name; `ingress` is a gateway's.

    The name may have a kind (`deploy/ui`) or a namespace (`noistio/curl`) before it; without a
    namespace `default` comes first. Raises FailureError, naming the known pods, when none fits.
    """
    from lab.manifests import registry

    before, _, short = name.rpartition("/")
    if before and registry.find(before) is None:
        namespace = before
    pods = [pod for pod in snapshot.pods if namespace in (None, pod.namespace)]
    pods.sort(key=lambda pod: (pod.namespace != "default", not pod.ready))
    readings: tuple[Callable[[Pod], bool], ...] = (
        lambda pod: pod.name == short,
        lambda pod: pod.name.rpartition("-")[0] == short,
        lambda pod: pod.name.rsplit("-", 2)[0] == short,
        lambda pod: pod.labels.get("app") == short,
        lambda pod: short == GATEWAY and pod.proxy == "gateway",
    )
    for fits in readings:
        if found := next((pod for pod in pods if fits(pod)), None):
            return found
    known = sorted({pod.labels.get("app") or pod.name for pod in pods})
    raise FailureError(f"no pod, workload or app called {name}; there are: {', '.join(known)}")


def _print(pod: Pod, method: str, url: str, found: Explanation) -> None:
    from rich.console import Console
    from rich.text import Text

    rows = [(step, "") for step in found.steps]
    for title, targets in (("destination", found.targets), ("mirror", found.mirrors)):
        for target in targets:
            rows += [(step, indent) for step, indent in _target_rows(title, target)]
    width = max(len(indent + step.what) for step, indent in rows) + 2
    console = Console(highlight=False, soft_wrap=True)
    asked = url if url.startswith("tcp:") else f"{method} {url}"
    console.print(Text(asked, style="bold"), f"from {pod.namespace}/{pod.name}")
    for step, indent in rows:
        line = Text(f"{indent}{step.what}".ljust(width), style="cyan")
        line.append(step.says, style="bold red" if step.what == "answer" else "default")
        if step.place:
            line.append(f"  {step.place}", style="dim")
        console.print(line)


def _target_rows(title: str, target: Target) -> Iterator[tuple[Step, str]]:
    from lab.explain.steps import Step

    share = f"{target.share:.1%}".replace(".0%", "%")
    yield Step(title, f"{share} to {target.cluster}"), ""
    if target.pods:
        yield Step("pods", ", ".join(target.pods)), "  "
    yield from ((step, "  ") for step in target.steps)
