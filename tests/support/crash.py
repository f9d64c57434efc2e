"""Labs killed at random moments under traffic: `python -m tests.support.crash ROUNDS`.

Prints for each round the seconds until nothing of the lab was left, and those until it was ready
again.
"""

from __future__ import annotations

import contextlib
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx

from lab.cluster.process import marked
from tests.support.lab import COMMAND, Lab, left_behind, spawn, wait_until_ready
from tests.support.wait import wait

KINDS = ("user", "mnt", "uts", "net")

LOOP = "while true; do curl -s -m 5 -o /dev/null http://message-service/hello/x; done"


def rounds(folder: Path, count: int, client: str, *options: str) -> Iterator[tuple[float, float]]:
    """Yields the two times of each round; fails when something of the machine has changed.

    `client` is a pod with a sidecar, from which the Service `message-service` is called.
    """
    before = machine()
    lab = spawn(folder, *options)
    wait_until_ready(lab)
    try:
        for _ in range(count):
            with traffic(lab, client):
                time.sleep(random.uniform(0.3, 3))
                used = namespaces(marked(str(folder))) - namespaces([lab.process.pid])
                used |= namespaces([lab.process.pid], "user", "mnt")
                lab.process.kill()
                killed = time.monotonic()
                lab.process.wait()
                wait(lambda: left_behind(folder) == [], "nothing carries the lab's mark", 5)
                wait(lambda used=used: not used & namespaces(), "its namespaces have ended", 5)  # type: ignore[misc]
                gone = time.monotonic()
            assert machine() == before
            began = time.monotonic()
            lab = spawn(folder)
            wait_until_ready(lab)
            yield gone - killed, time.monotonic() - began
    finally:
        lab.stop()
    assert left_behind(folder) == []


def machine() -> tuple[list[str], str]:
    """Returns what the lab must not change: the links and the mounts of this machine."""
    links = sorted(path.name for path in Path("/sys/class/net").iterdir())
    return links, Path("/proc/self/mounts").read_text()


def namespaces(pids: list[int] | None = None, *kinds: str) -> set[str]:
    """Returns the namespaces of processes, by default of all."""
    found = set()
    numbers = ["[0-9]*"] if pids is None else map(str, pids)
    for number in numbers:
        for kind in kinds or KINDS:
            for entry in Path("/proc").glob(f"{number}/ns/{kind}"):
                with contextlib.suppress(OSError):
                    found.add(str(entry.readlink()))
    return found


@contextlib.contextmanager
def traffic(lab: Lab, client: str) -> Iterator[None]:
    """Asks for the page, and has a pod ask a Service, from two containers of its own."""
    ended = threading.Event()
    url = lab.url()

    def visit() -> None:
        while not ended.is_set():
            with contextlib.suppress(httpx.HTTPError):
                httpx.get(url, timeout=5, trust_env=False)

    name = lab.ready(f"app={client}", len(lab.pods(f"app={client}")))[0]["metadata"]["name"]
    command = [*COMMAND, "--state", str(lab.folder), "exec", name, "-c"]
    inside = [
        subprocess.Popen(
            [*command, container, "--", "sh", "-c", LOOP],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for container in (client, "istio-proxy")
    ]
    visitor = threading.Thread(target=visit)
    visitor.start()
    try:
        yield
    finally:
        ended.set()
        visitor.join()
        for process in inside:
            # They end with the lab, without being told.
            process.wait(10)


def main() -> None:
    with tempfile.TemporaryDirectory() as parent:
        for number, (gone, ready) in enumerate(
            rounds(Path(parent) / "lab", int(sys.argv[1]), "ui"), 1
        ):
            print(f"{number}: gone after {gone:.2f} s, ready again after {ready:.2f} s", flush=True)


if __name__ == "__main__":
    main()
