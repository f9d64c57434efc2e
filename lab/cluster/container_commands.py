"""Commands that people and probes run inside a container, as they are run on this machine.

There is no DNS and no network namespace here, so `localhost` and Service names are turned into
the addresses that stand for them: the choice that cluster DNS and kube-proxy would make. curl and
openssl themselves are the machine's, so that what they print and how they end is the truth.
"""

from __future__ import annotations

import ipaddress
import itertools
import random
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from lab.cluster.addresses import bindable
from lab.cluster.programs import PYTHON, local
from lab.kinds.kubernetes import service as service_kind
from lab.kinds.services import endpoints
from lab.model import Pod, Service
from lab.standins import mysql

_LOCAL = ("localhost", "127.0.0.1")
_MYSQL_CLIENTS = {
    "mysqladmin": ("mariadb-admin", "mysqladmin"),
    "mariadb-admin": ("mariadb-admin", "mysqladmin"),
    "mysql": ("mariadb", "mysql"),
    "mariadb": ("mariadb", "mysql"),
}
_PORTS = {"http": 80, "https": 443, "telnet": 23, "dict": 2628}
_NOWHERE = 1
"""A port where nothing listens: a Service without a ready pod refuses connections."""

_CURL_SHORT = frozenset("AbcCdDeEFhHKmoPQrtTuUwxXyYz")
_CURL_FLAGS = frozenset(
    [
        "--silent",
        "--show-error",
        "--include",
        "--insecure",
        "--location",
        "--fail",
        "--head",
        "--verbose",
        "--get",
        "--compressed",
        "--http1.0",
        "--http1.1",
        "--http2",
        "--http2-prior-knowledge",
        "--http3",
        "--no-buffer",
        "--remote-name",
        "--ipv4",
        "--ipv6",
        "--tlsv1.2",
        "--tlsv1.3",
        "--no-keepalive",
        "--fail-with-body",
        "--raw",
        "--progress-bar",
        "--parallel",
        "--retry-all-errors",
        "--retry-connrefused",
        "--create-dirs",
        "--globoff",
        "--junk-session-cookies",
        "--append",
        "--no-progress-meter",
        "--next",
        "--location-trusted",
        "--path-as-is",
        "--version",
        "--help",
    ]
)


@dataclass(frozen=True, slots=True)
class View:
    """What a command sees of the cluster from inside its container."""

    pod: Pod
    proxy_container: bool
    services: Sequence[Service]
    pods: Sequence[Pod]

    @property
    def own(self) -> str:
        """What `localhost` means."""
        return self.pod.address if self.pod.proxy == "none" else self.pod.inside_address

    @property
    def captured(self) -> bool:
        """Whether connections go through the sidecar; those of the sidecar itself don't."""
        return self.pod.proxy == "sidecar" and not self.proxy_container


def in_container(argv: Sequence[str], address: str, env: Mapping[str, str]) -> list[str]:
    """A probe's or hook's command, whose `localhost` is `address`; `env` is its container's."""
    name = argv[0].rpartition("/")[2] if argv else ""
    if name in _MYSQL_CLIENTS:
        return _mysql_client(name, argv[1:], address, mysql.serves(env))
    if name == "redis-cli" and not any(word in ("-h", "-u") for word in argv):
        return [argv[0], "-h", address, *argv[1:]]
    return local(argv)


def executed(argv: Sequence[str], view: View, env: Mapping[str, str]) -> list[str]:
    """A command of `exec`."""
    name = argv[0].rpartition("/")[2] if argv else ""
    if name == "curl":
        return ["curl", *_curl(argv[1:], view)]
    if name == "openssl":
        return ["openssl", *_openssl(argv[1:], view)]
    if name == "pilot-agent":
        return _pilot_agent(argv[1:], view)
    return in_container(argv, view.own, env)


def _mysql_client(name: str, args: Sequence[str], address: str, real: bool) -> list[str]:
    program = next((found for c in _MYSQL_CLIENTS[name] if (found := shutil.which(c))), None)
    if program is None or not real:
        # The placeholder has no protocol to ask in: it accepts connections.
        return [PYTHON, "-m", "lab.standins.mysql", "--ping", address]
    words = [word.replace(f"={host}", f"={address}") for word in args for host in ("127.0.0.1",)]
    words = [address if word in _LOCAL else word for word in words]
    if not any(word.startswith(("--host", "-h")) for word in words):
        words.insert(0, f"--host={address}")
    return [program, *words]


def _pilot_agent(args: Sequence[str], view: View) -> list[str]:
    """`pilot-agent request GET stats?filter=x`: the proxy's admin API."""
    if len(args) != 3 or args[0] != "request":
        return ["sh", "-c", "echo 'usage: pilot-agent request GET|POST PATH' >&2; exit 1"]
    url = f"http://{view.pod.inside_address}:15000/{args[2].lstrip('/')}"
    return ["curl", "--silent", "--show-error", "--globoff", "--request", args[1], url]


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _place(host: str, port: int, view: View) -> tuple[str, int] | None:
    """Where a direct connection to `host:port` leads; None to leave it to the machine."""
    if host in _LOCAL:
        return view.own, port
    if _is_address(host):
        return None
    service = service_kind.named(host, view.pod.namespace, view.services)
    if service is None:
        return None
    for item in service.ports:
        if item.port != port:
            continue
        if view.captured and item.protocol in ("TCP", "TLS"):
            return view.own, port
        if ready := endpoints(service, item, view.pods):
            chosen = random.choice(ready)  # noqa: S311 - load balancing
            return chosen.address, chosen.port
    return view.own, _NOWHERE


def _urls(args: Sequence[str]) -> Iterator[str]:
    """The URLs of a curl command line: what is neither an option nor an option's value."""
    words = iter(args)
    for word in words:
        if word == "--url":
            yield next(words, "")
        elif word.startswith("--"):
            if word not in _CURL_FLAGS and not word.startswith("--no-") and "=" not in word:
                next(words, None)
        elif word.startswith("-") and len(word) > 1:
            for index, letter in enumerate(word[1:], 1):
                if letter in _CURL_SHORT:
                    if index == len(word) - 1:
                        next(words, None)
                    break
        else:
            yield word


def _curl(args: Sequence[str], view: View) -> list[str]:
    extra: list[str] = []
    resolved = {(host, port) for host, port, _ in _resolutions(args)}
    secure = False
    for url in _urls(args):
        parts = urlsplit(url if "://" in url else f"http://{url}")
        secure = secure or parts.scheme == "https"
        try:
            port = parts.port or _PORTS.get(parts.scheme, 80)
        except ValueError:
            continue
        host = parts.hostname or ""
        proxied = view.captured and parts.scheme in ("http", "https") and host not in _LOCAL
        if proxied or (host, port) in resolved:
            continue
        if (place := _place(host, port, view)) is not None:
            extra += ["--connect-to", f"{host}:{port}:{place[0]}:{place[1]}"]
    for host, port, address in _resolutions(args):
        target = bindable(address, port) if _is_address(address) else port
        if view.captured:
            # curl leaves names to its proxy; this header takes the place of the address that
            # the packet would have had.
            option = "--proxy-header" if secure else "--header"
            extra += [option, f"x-envoy-original-dst-host: {address}:{target}"]
        elif target != port:
            extra += ["--connect-to", f"{host}:{port}:{address}:{target}"]
    return [*extra, *args]


def _resolutions(args: Sequence[str]) -> Iterator[tuple[str, int, str]]:
    for word, value in itertools.pairwise(args):
        parts = value.split(":", 2)
        if word == "--resolve" and len(parts) == 3 and parts[1].isdigit():
            yield parts[0], int(parts[1]), parts[2]


def _openssl(args: Sequence[str], view: View) -> list[str]:
    words = list(args)
    if "-connect" not in words or words.index("-connect") + 1 >= len(words):
        return words
    index = words.index("-connect") + 1
    host, _, text = words[index].rpartition(":")
    if not text.isdigit():
        return words
    if not _is_address(host) and not {"-servername", "-noservername"} & set(words):
        words += ["-servername", host]
    if view.captured and host not in _LOCAL:
        return [*words, "-proxy", f"{view.own}:15001"]
    if (place := _place(host, int(text), view)) is not None:
        words[index] = f"{place[0]}:{place[1]}"
    return words
