"""A stand-in for kubectl: a small cluster in a file, strict about its command line.

Started as a program named `kubectl`. It records every call, refuses verbs and flags that the real
one doesn't have, keeps objects, and makes pods for Deployments. `STANDIN` is its folder.

With a file `lag` (three numbers) there is an istiod as well, which learns of a change so many
seconds later, sends it after the second number, and has it acknowledged after the third.
"""

from __future__ import annotations

import argparse
import copy
import fcntl
import json
import os
import random
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import yaml

HOME = Path(os.environ.get("STANDIN", "."))
CLUSTER_SCOPED = {"namespace", "namespaces"}
SINGULAR = {
    "pods": "pod",
    "deployments": "deployment",
    "deployments.apps": "deployment",
    "services": "service",
    "svc": "service",
    "namespaces": "namespace",
}


@contextmanager
def state() -> Iterator[dict[str, Any]]:
    """The cluster's objects by `kind|namespace|name`; changes are written back."""
    with (HOME / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        path = HOME / "objects.json"
        objects = json.loads(path.read_text()) if path.exists() else {}
        before = json.dumps(objects)
        yield objects
        after = json.dumps(objects)
        path.write_text(after)
        if after != before and (HOME / "lag").exists():
            with (HOME / "history").open("a") as history:
                history.write(json.dumps([time.time(), objects]) + "\n")


def known(after: float) -> tuple[int, dict[str, Any]]:
    """The version, and the objects, that somebody has who learns of a change so much later."""
    lines = (HOME / "history").read_text().splitlines() if (HOME / "history").exists() else []
    versions = [(when, objects) for when, objects in map(json.loads, lines)]
    old = [objects for when, objects in versions if when <= time.time() - after]
    return len(old), old[-1] if old else {}


def istiod(path: str) -> str:
    """Returns an answer of istiod's monitoring port."""
    learns, sends, acknowledges = map(float, (HOME / "lag").read_text().split())
    if path == "/debug/configz":
        _, objects = known(learns)
        return json.dumps([o for o in objects.values() if "istio.io" in o["apiVersion"]])
    if path == "/debug/syncz":
        (sent, _), (acknowledged, _) = known(sends), known(acknowledges)
        nonces = {"route_sent": f"v{sent}", "route_acked": f"v{acknowledged}"}
        names = ["ui-0.default", "ui-1.default"]
        random.shuffle(names)  # as istiod does
        return json.dumps([{"proxy": name, **nonces} for name in names])
    return f'pilot_inbound_updates{{type="config"}} {known(learns)[0]}\n'


def key(kind: str, namespace: str, name: str) -> str:
    kind = SINGULAR.get(kind.lower(), kind.lower()).partition(".")[0]
    return f"{kind}|{'' if kind in CLUSTER_SCOPED else namespace}|{name}"


class Monitoring(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        body = istiod(self.path).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


class Application(Monitoring):
    """A pod of message-service, which behaves when it is asked to."""

    def do_POST(self) -> None:
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()


SERVED = {"15014": Monitoring, "8080": Application}


def serve(port: str) -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), SERVED[port]) as server:
        print(f"Forwarding from 127.0.0.1:{server.server_port} -> {port}", flush=True)
        server.serve_forever()


def add(objects: dict[str, Any], document: dict[str, Any]) -> str:
    """Apply one object; says what `kubectl apply` says."""
    document = copy.deepcopy(document)
    metadata = document["metadata"]
    kind = document["kind"].lower()
    if kind not in CLUSTER_SCOPED:
        metadata.setdefault("namespace", "default")
    place = key(kind, metadata.get("namespace", ""), metadata["name"])
    old = objects.get(place)
    applied = json.dumps(document)
    if old is not None:  # the three-way merge leaves labels of `kubectl label` alone
        metadata["labels"] = {**old["metadata"].get("labels", {}), **metadata.get("labels", {})}
    metadata.setdefault("annotations", {})["kubectl.kubernetes.io/last-applied-configuration"] = (
        applied
    )
    metadata["uid"] = metadata["resourceVersion"] = f"{time.time_ns()}"
    objects[place] = document
    if kind == "deployment":
        replicas = document["spec"].get("replicas", 1)
        document["status"] = {"readyReplicas": replicas}
        for number in range(replicas):
            template = copy.deepcopy(document["spec"]["template"])
            name = f"{metadata['name']}-{number}"
            template["metadata"] |= {"name": name, "namespace": metadata["namespace"]}
            start(objects, {"apiVersion": "v1", "kind": "Pod", **template})
    if kind == "pod":
        start(objects, document)
    return f"{kind}/{metadata['name']} {'configured' if old else 'created'}"


def start(objects: dict[str, Any], pod: dict[str, Any]) -> None:
    metadata = pod["metadata"]
    containers = [c["name"] for c in pod["spec"]["containers"]]
    pod["status"] = {
        "phase": "Running",
        "podIP": "127.0.0.1",
        "conditions": [{"type": "Ready", "status": "True"}],
        "containerStatuses": [{"name": name, "ready": True} for name in containers],
    }
    objects[key("pod", metadata["namespace"], metadata["name"])] = pod


def parser() -> argparse.ArgumentParser:
    every = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    every.add_argument("-n", "--namespace", default="default")
    top = argparse.ArgumentParser(prog="kubectl", allow_abbrev=False)
    top.add_argument("--context")
    verbs = top.add_subparsers(dest="verb", required=True)

    def verb(name: str) -> argparse.ArgumentParser:
        return verbs.add_parser(name, parents=[every], allow_abbrev=False)

    get = verb("get")
    get.add_argument("names", nargs="+")
    get.add_argument("-l", "--selector")
    get.add_argument("-o", "--output", choices=["json", "name", "yaml"])
    get.add_argument("--ignore-not-found", action="store_true")
    for name in ("apply", "delete"):
        change = verb(name)
        change.add_argument("names", nargs="*")
        change.add_argument("-f", "--filename", action="append", default=[])
        if name == "delete":
            change.add_argument("--ignore-not-found", action="store_true")
    label = verb("label")
    label.add_argument("names", nargs="+")
    label.add_argument("--overwrite", action="store_true")
    wait = verb("wait")
    wait.add_argument("names", nargs="+")
    wait.add_argument("--for", dest="condition", required=True)
    wait.add_argument("--timeout")
    rollout = verb("rollout")
    rollout.add_argument("names", nargs=2)
    rollout.add_argument("--timeout")
    logs = verb("logs")
    logs.add_argument("names", nargs=1)
    logs.add_argument("-c", "--container")
    execute = verb("exec")
    execute.add_argument("names", nargs=1)
    execute.add_argument("-c", "--container")
    execute.add_argument("-i", "--stdin", action="store_true")
    config = verb("config")
    config.add_argument("names", choices=["current-context"])
    forward = verb("port-forward")
    forward.add_argument("names", nargs=2)
    return top


def items(objects: dict[str, Any], args: argparse.Namespace) -> list[dict[str, Any]]:
    kind, *names = args.names
    if "/" in kind:
        kind, name = kind.split("/")
        names = [name]
    prefixes = tuple(key(one, args.namespace, "") for one in kind.split(","))
    found = [item for place, item in objects.items() if place.startswith(prefixes)]
    if names:
        found = [item for item in found if item["metadata"]["name"] in names]
    for pair in (args.selector or "").split(","):
        if pair:
            label, _, value = pair.partition("=")
            found = [i for i in found if i["metadata"].get("labels", {}).get(label) == value]
    return found


def get(args: argparse.Namespace) -> int:
    with state() as objects:
        found = items(objects, args)
    single = len(args.names) == 2 or "/" in args.names[0]
    if single and not found:
        if args.ignore_not_found:
            return 0
        print("Error from server (NotFound)", file=sys.stderr)
        return 1
    if len(args.names) > 2 and not found and args.ignore_not_found:
        return 0
    listed = {"apiVersion": "v1", "kind": "List", "items": found}
    if args.output == "name":
        print("\n".join(f"{i['kind'].lower()}/{i['metadata']['name']}" for i in found))
    else:
        print(json.dumps(found[0] if single else listed))
    return 0


def documents(files: list[str]) -> list[dict[str, Any]]:
    loaded: list[dict[str, Any]] = []
    for file in files:
        text = sys.stdin.read() if file == "-" else Path(file).read_text()
        for document in yaml.safe_load_all(text):
            loaded += document["items"] if document["kind"] == "List" else [document]
    return loaded


def apply(args: argparse.Namespace) -> int:
    with state() as objects:
        for document in documents(args.filename):
            print(add(objects, document))
    return 0


def delete(args: argparse.Namespace) -> int:
    names = [
        (d["kind"], d["metadata"].get("namespace", "default"), d["metadata"]["name"])
        for d in documents(args.filename)
    ]
    names += [(*[n.split("/")[0], args.namespace], n.split("/")[1]) for n in args.names]
    with state() as objects:
        for kind, namespace, name in names:
            if objects.pop(key(kind, namespace, name), None) is None and not args.ignore_not_found:
                print(f"Error from server (NotFound): {kind} {name}", file=sys.stderr)
                return 1
            short = key(kind, namespace, name).partition("|")[0]
            for place in [p for p in objects if short == "namespace" and f"|{name}|" in p]:
                del objects[place]
            for place in [p for p in objects if short == "deployment"]:
                if place.startswith(f"pod|{namespace}|{name}-"):
                    del objects[place]
    return 0


def label(args: argparse.Namespace) -> int:
    kind, name, *labels = args.names
    with state() as objects:
        item = objects[key(kind, args.namespace, name)]
        for text in labels:
            current = item["metadata"].setdefault("labels", {})
            if text.endswith("-"):
                current.pop(text[:-1], None)
            else:
                current.update([text.split("=", 1)])
    return 0


def logs(args: argparse.Namespace) -> int:
    path = HOME / "logs" / args.names[0]
    print(path.read_text() if path.exists() else "", end="")
    return 0


def execute(args: argparse.Namespace, command: list[str]) -> int:
    if command[0] == "curl" and "-w" in command:
        print('HTTP/1.1 200 OK\r\nx-pod: yes\r\n\r\n{"version": "1.0"}', end="")
        print("\n200 0.010")
        return 0
    if command[0] == "pilot-agent":
        path = HOME / "proxies" / f"{args.names[0]}-{command[-1].replace('/', '-')}"
        print(path.read_text() if path.exists() else "", end="")
        return 0
    print(f"curl: (56) nothing for {command}", file=sys.stderr)
    print("command terminated with exit code 56", file=sys.stderr)
    return 56


def main(argv: list[str]) -> int:
    with (HOME / "calls").open("a") as calls:
        calls.write(json.dumps(argv) + "\n")
    own, command = argv, []
    if "--" in argv:
        own, command = argv[: argv.index("--")], argv[argv.index("--") + 1 :]
    args = parser().parse_args(own)
    if args.verb == "exec":
        return execute(args, command)
    if args.verb == "port-forward" and (port := args.names[1].partition(":")[2]) in SERVED:
        serve(port)
    if args.verb == "port-forward":
        with socket.create_server(("127.0.0.1", 0)) as server:
            port, remote = server.getsockname()[1], args.names[1].partition(":")[2]
            print(f"Forwarding from 127.0.0.1:{port} -> {remote}", flush=True)
            time.sleep(600)
    if args.verb == "config":
        print("kind-guestbook")
    verbs = {"get": get, "apply": apply, "delete": delete, "label": label, "logs": logs}
    return verbs[args.verb](args) if args.verb in verbs else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
