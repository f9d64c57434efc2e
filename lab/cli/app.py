"""The application: every command by the name it is typed with, and how errors end."""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer
import typer.core

from lab.cli import complete
from lab.cli.analyze import analyze
from lab.cli.api_resources import api_resources
from lab.cli.apply import apply, install
from lab.cli.client import FailureError
from lab.cli.context import Settings
from lab.cli.create import create
from lab.cli.dashboard import dashboard
from lab.cli.delete import delete
from lab.cli.describe import describe
from lab.cli.diff import diff
from lab.cli.down import down
from lab.cli.edit import edit
from lab.cli.env import env
from lab.cli.events import events_
from lab.cli.exec import exec_
from lab.cli.exercise import exercise
from lab.cli.explain import explain
from lab.cli.flags import for_typer
from lab.cli.get import get
from lab.cli.graph import graph
from lab.cli.image import image
from lab.cli.kube_inject import kube_inject
from lab.cli.label import annotate, label
from lab.cli.logs import logs
from lab.cli.metrics import metrics
from lab.cli.patch import patch
from lab.cli.port_forward import port_forward
from lab.cli.proxy_config import proxy_config
from lab.cli.proxy_status import proxy_status
from lab.cli.replace import replace
from lab.cli.reset import reset
from lab.cli.rollout import rollout
from lab.cli.route import route
from lab.cli.route_test import route_test
from lab.cli.run import run as run_pod
from lab.cli.scale import scale
from lab.cli.set import set_
from lab.cli.shell import shell
from lab.cli.status import status
from lab.cli.token import token
from lab.cli.top import top
from lab.cli.up import up
from lab.cli.version import version
from lab.cli.wait import wait
from lab.cli.x_describe import x_describe

TRACE = "GUESTBOOK_TRACE"
"""If set, internal errors print a traceback."""

COMMANDS: dict[str, Callable[..., None]] = {
    "up": up,
    "down": down,
    "reset": reset,
    "status": status,
    "env": env,
    "shell": shell,
    "apply": apply,
    "diff": diff,
    "edit": edit,
    "patch": patch,
    "replace": replace,
    "delete": delete,
    "get": get,
    "describe": describe,
    "label": label,
    "annotate": annotate,
    "install": install,
    "api-resources": api_resources,
    "explain": explain,
    "scale": scale,
    "wait": wait,
    "run": run_pod,
    "image": image,
    "top": top,
    "logs": logs,
    "events": events_,
    "exec": exec_,
    "port-forward": port_forward,
    "kube-inject": kube_inject,
    "token": token,
    "proxy-config": proxy_config,
    "proxy-status": proxy_status,
    "graph": graph,
    "metrics": metrics,
    "dashboard": dashboard,
    "route": route,
    "route test": route_test,
    "analyze": analyze,
    "x describe": x_describe,
    "version": version,
}
"""Commands in the order of `--help`. A module imports the rest of the lab when its command runs."""

GROUPS = {"create": create, "set": set_, "rollout": rollout, "exercise": exercise}


MISSING = {
    "kubectl": {
        "attach": "`logs -f` prints what a container says, `exec` runs a program in it",
        "auth": "everybody may do everything in the lab",
        "autoscale": "`scale` sets the number of pods",
        "certificate": "`proxy-config secret` shows the certificates of a proxy",
        "cluster-info": "`status` has the lab's addresses",
        "completion": "`guestbook --install-completion` does it for this shell",
        "config": "a lab has one context; `-n` gives the namespace",
        "cordon": "there is one node",
        "create clusterrole": "everybody may do everything in the lab",
        "create clusterrolebinding": "everybody may do everything in the lab",
        "create cronjob": "`run --restart=Never` makes a pod that ends",
        "create ingress": "a Gateway and a VirtualService bring traffic in",
        "create job": "`run --restart=Never` makes a pod that ends",
        "create role": "everybody may do everything in the lab",
        "create rolebinding": "everybody may do everything in the lab",
        "create secret docker-registry": "no image is pulled",
        "create service": "write a Service and `apply -f` it",
        "create token": "`token` makes one",
        "cp": "containers have the files of this machine; `exec` reads and writes them",
        "debug": "`run --image=curlimages/curl` makes a pod to ask from",
        "drain": "there is one node",
        "expose": "write a Service and `apply` it",
        "kustomize": "`apply -k` takes a kustomization, `diff -k` shows what it would change",
        "plugin": "the lab runs no plugins",
        "proxy": "`port-forward` reaches a pod or a Service",
        "set resources": "`patch` and `edit` change an object; the lab limits no process",
        "set selector": "`patch svc` and `edit` change an object",
        "set serviceaccount": "`patch` and `edit` change an object",
        "set subject": "everybody may do everything in the lab",
        "taint": "there is one node",
        "uncordon": "there is one node",
    },
    "istioctl": {
        "admin": "there is no istiod; `proxy-config log` sets the levels of a proxy",
        "authz": "`route` says what policies do to a request",
        "bug-report": "`status`, `logs` and `proxy-config all` have what it collects",
        "manifest": "`install -f` sets the mesh's configuration",
        "profile": "`install -f` takes the mesh configuration of a file",
        "remote-clusters": "there is one cluster",
        "tag": "there is one control plane, without revisions",
        "uninstall": "`reset` brings the lab back, `down` ends it",
        "upgrade": "the lab plays one version of Istio",
        "validate": "`apply --dry-run=server -f` checks files, `analyze -f` what they say together",
        "waypoint": "the lab has no ambient mode",
        "ztunnel-config": "there is no ambient mode; `proxy-config` shows a sidecar",
    },
}
"""Verbs of a cluster's programs that the lab lacks, each with what there is instead."""


class Words(typer.core.TyperGroup):
    """Commands, some of which have a name of two words."""

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
        if args[0] == "help":
            args = [*args[1:], "--help"]
        if args[:1] == ["experimental"]:
            args = ["x", *args[1:]]
        if args[0] == "x" and " ".join(args[:2]) not in COMMANDS:
            typed = " ".join(word for word in args[:2] if not word.startswith("-"))
            raise FailureError(
                f"istioctl {typed} is not in the lab: it has x describe, proxy-status, "
                "proxy-config and analyze"
            )
        for program, verbs in MISSING.items():
            for words in (" ".join(args[:size]) for size in (1, 2, 3)):
                if words in verbs:
                    raise FailureError(f"{program} {words} is not in the lab: {verbs[words]}")
        pair = " ".join(args[:2])
        return super().resolve_command(ctx, [pair, *args[2:]] if pair in COMMANDS else args)


app = typer.Typer(
    name="guestbook",
    cls=Words,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    rich_markup_mode="rich",
)
for name, command in COMMANDS.items():
    app.command(name)(command)
app.command("pc", hidden=True)(proxy_config)
app.command("ps", hidden=True)(proxy_status)
app.command("dash", hidden=True)(dashboard)
app.command("d", hidden=True)(dashboard)
for name, group in GROUPS.items():
    app.add_typer(group, name=name)


@app.callback(invoke_without_command=True)
def options(
    context: typer.Context,
    namespace: Annotated[
        str | None,
        typer.Option(
            "--namespace",
            "-n",
            help="The namespace for the command.",
            autocompletion=complete.namespaces,
        ),
    ] = None,
    state: Annotated[
        Path | None,
        typer.Option(help="The lab's state folder.", envvar="GUESTBOOK_STATE"),
    ] = None,
) -> None:
    """A lab for the guestbook: a cluster with Istio on this machine, with kubectl's verbs.

    Start it with `guestbook up`, then use the verbs you know: apply, get, logs, exec, delete.
    """
    if context.invoked_subcommand is None:
        context.get_help()  # It prints it.
        raise typer.Exit(1)
    folder = state.absolute() if state is not None else None
    context.obj = Settings(run, namespace, folder)


_command = functools.cache(functools.partial(typer.main.get_command, app))
"""The tree of commands, built once: the exercises run many commands in one process."""


def run(argv: list[str]) -> int:
    """Runs one command line; returns the exit status."""
    try:
        words = for_typer(argv, _command())
        status = _command().main(args=words, prog_name="guestbook", standalone_mode=False)
        sys.stdout.flush()
    except BrokenPipeError:
        # The reader has seen enough. Without this, Python would say so when it ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except FailureError as error:
        reason = "NotFound" if error.missing else "AlreadyExists" if error.existing else ""
        for line in error.lines:
            sys.stderr.write(
                f"Error from server ({reason}): {line}\n" if reason else f"Error: {line}\n"
            )
        return 1
    except typer.TyperException as error:
        # A group of commands without a command has printed its help; there is no message.
        if message := error.format_message():
            context = getattr(error, "ctx", None)
            path = context.command_path if context is not None else "guestbook"
            if "unexpected extra argument" in message and path.endswith((" apply", " diff")):
                message += ": a file is given with -f"
            sys.stderr.write(f"Error: {message}\nSee: {path} --help\n")
        return 1
    except (KeyboardInterrupt, typer.Abort):
        return 130
    except OSError as error:
        place = f"{error.filename}: " if error.filename else ""
        sys.stderr.write(f"Error: {place}{error.strerror or error}\n")
        return 1
    except Exception as error:
        if os.environ.get(TRACE):
            raise
        sys.stderr.write(f"Error: {error!r}\nThis is a defect; {TRACE}=1 shows where\n")
        return 1
    return status if isinstance(status, int) else 0
