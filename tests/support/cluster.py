"""A cluster for tests: the stand-in kubectl on PATH, and an ingress that follows its objects."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import yaml

from lab.exercises import load
from tests.support.repository import ISTIO, ROOT

DISCOVERY = {"name": "discovery", "image": "istio/pilot"}
PROGRAM = """#!{python}
import runpy, sys
sys.argv[0] = "kubectl"
runpy.run_path({script!r}, run_name="__main__")
"""


class Cluster:
    """The objects of the stand-in, and the calls it received."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.url = ""

    @property
    def calls(self) -> list[list[str]]:
        return [json.loads(line) for line in (self.home / "calls").read_text().splitlines()]

    @property
    def objects(self) -> dict[str, Any]:
        return dict(json.loads((self.home / "objects.json").read_text()))

    @property
    def routes(self) -> dict[str, Any]:
        """The objects as the proxies have them."""
        if not (self.home / "lag").exists():
            return self.objects
        late = float((self.home / "lag").read_text().split()[-1])
        lines = map(json.loads, (self.home / "history").read_text().splitlines())
        return next((o for when, o in reversed(list(lines)) if when <= time.time() - late), {})

    def lags(self, learns: float, sends: float, acknowledges: float) -> None:
        """From now on there is an istiod, and proxies that have a change so many seconds later."""
        (self.home / "history").write_text(json.dumps([0, self.objects]) + "\n")
        (self.home / "lag").write_text(f"{learns} {sends} {acknowledges}")
        account = {"metadata": {"name": "istiod", "namespace": "istio-system"}}
        pod = {"metadata": {"labels": {"app": "istiod"}}, "spec": {"containers": [DISCOVERY]}}
        selector = {"matchLabels": {"app": "istiod"}}
        spec = {"replicas": 1, "selector": selector, "template": pod}
        manifest = {"apiVersion": "apps/v1", "kind": "Deployment", **account, "spec": spec}
        subprocess.run(
            [str(self.home / "bin/kubectl"), "apply", "-f", "-"],
            input=json.dumps(manifest),
            text=True,
            check=True,
            capture_output=True,
            env=self.environment,
        )

    def essence(self) -> dict[str, Any]:
        """Everything but what changes when the same is applied again."""
        return {
            place: (item.get("spec"), item.get("data"), item["metadata"].get("labels") or {})
            for place, item in self.objects.items()
        }

    @property
    def environment(self) -> dict[str, str]:
        path = f"{self.home / 'bin'}{os.pathsep}{os.environ['PATH']}"
        return {
            **os.environ,
            "PATH": path,
            "STANDIN": str(self.home),
            "NO_COLOR": "1",
            "GUESTBOOK_STATE": str(self.home / "state"),
        }


def seed(home: Path) -> None:
    """The guestbook of k8s/base, its ingress, and the gateway's Service."""
    files = sorted((ROOT / "k8s/base").glob("*.yaml"))
    files += [ISTIO / "02-ingress" / n for n in ("gateway.yaml", "virtual-service.yaml")]
    wanted = [f for f in files if f.name != "kustomization.yaml"]
    argv = [str(home / "bin/kubectl"), "apply"]
    for file in wanted:
        argv += ["-f", str(file)]
    subprocess.run(argv, check=True, capture_output=True, env={**os.environ, "STANDIN": str(home)})


@contextmanager
def running(home: Path) -> Iterator[Cluster]:
    """A seeded cluster; its page says what its VirtualServices make of it."""
    (home / "bin").mkdir(parents=True)
    program = home / "bin/kubectl"
    script = str(Path(__file__).with_name("kubectl.py"))
    program.write_text(PROGRAM.format(python=sys.executable, script=script))
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    seed(home)
    (home / "calls").write_text("")
    cluster = Cluster(home)

    class Page(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            broken = "virtualservice|default|guestbook-service" in cluster.routes
            body = b"Guestbook Service is currently unavailable" if broken else b"Guestbook"
            self.send_response(200)
            self.send_header("x-ui-version", "1.0")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_POST = do_GET  # noqa: N815 - names that http.server looks for
        do_DELETE = do_GET  # noqa: N815

        def log_message(self, format: str, *args: Any) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Page)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    cluster.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield cluster
    finally:
        server.shutdown()
        server.server_close()


def exercise(folder: Path, steps: list[dict[str, Any]], **more: Any) -> Path:
    """An exercise of our own beside the real 02-ingress; the folder `istio`."""
    istio = folder / "istio"
    own = istio / "99-own"
    own.mkdir(parents=True)
    (istio / "02-ingress").symlink_to(ISTIO / "02-ingress")
    (istio / "01-sidecar").mkdir()
    abort = ISTIO / "03-fault-abort/virtual-service.yaml"
    (own / "abort.yaml").write_text(abort.read_text())
    data = {
        "title": "Own",
        "teaches": "nothing",
        "minutes": 1,
        "codelab": [],
        "steps": steps,
        "counterproof": [
            {
                "because": "of the test",
                "file": "abort.yaml",
                "set": {"metadata.name": "another"},
                "fails": steps[0]["step"],
            }
        ],
        **more,
    }
    (own / "check").mkdir()
    (own / load.FILE).write_text(yaml.safe_dump(data))
    return istio
