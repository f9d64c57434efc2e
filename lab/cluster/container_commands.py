"""Commands inside a container, of `exec`, probes and hooks, as they are run on this machine.

Without a network of the pod's own (`executed`), `localhost` and Service names are turned into
the addresses that stand for them: the choice that cluster DNS and kube-proxy would make. curl and
openssl are the machine's own, so that their output and exit status are real.
"""

from __future__ import annotations

import ipaddress
import itertools
import random
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from lab.cluster.addresses import bindable
from lab.cluster.programs import PYTHON, local
from lab.kinds.kubernetes import service as service_kind
from lab.kinds.services import ready_endpoints
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
_CURL_FLAG = re.compile(
    r"""--(append|compressed|create-dirs|fail|fail-with-body|get|globoff|head|help|http1\.0|http1\.1
    |http2|http2-prior-knowledge|http3|include|insecure|ipv4|ipv6|junk-session-cookies|location
    |location-trusted|next|no-.*|parallel|path-as-is|progress-bar|raw|remote-name
    |retry-all-errors|retry-connrefused|show-error|silent|tlsv1\.2|tlsv1\.3|verbose|version)""",
    re.VERBOSE,
)
"""curl's long options without a value."""


@dataclass(frozen=True, slots=True)
class Caller:
    """The container in which a command runs, and the Services and pods that it may name."""

    pod: Pod
    proxy_container: bool
    services: Sequence[Service]
    pods: Sequence[Pod]

    @property
    def own(self) -> str:
        """The address that `localhost` stands for."""
        return self.pod.address if self.pod.proxy == "none" else self.pod.inside_address

    @property
    def captured(self) -> bool:
        """Whether connections go through the sidecar; those of the sidecar itself don't."""
        return self.pod.proxy == "sidecar" and not self.proxy_container


def in_container(argv: Sequence[str], address: str, env: Mapping[str, str]) -> list[str]:
    """Returns a command with the programs that play those of images.

    `address` is the pod's localhost, `env` the container's environment.
    """
    name = argv[0].rpartition("/")[2] if argv else ""
    if name == "pilot-agent":
        return _pilot_agent(argv[1:], address)
    if name in _MYSQL_CLIENTS:
        return _mysql_client(name, argv[1:], address, mysql.serves(env))
    if name == "redis-cli" and not any(word in ("-h", "-u") for word in argv):
        return [argv[0], "-h", address, *argv[1:]]
    return local(argv)


def executed(argv: Sequence[str], caller: Caller, env: Mapping[str, str]) -> list[str]:
    """Returns a command as it is run without a network of the pod's own."""
    name = argv[0].rpartition("/")[2] if argv else ""
    if name == "curl":
        return ["curl", *_curl(argv[1:], caller)]
    if name == "openssl":
        return ["openssl", *_openssl(argv[1:], caller)]
    return in_container(argv, caller.own, env)


def _mysql_client(name: str, args: Sequence[str], address: str, real: bool) -> list[str]:
    program = next((found for c in _MYSQL_CLIENTS[name] if (found := shutil.which(c))), None)
    if program is None or not real:
        # The placeholder has no protocol to ask in: it accepts connections.
        return [PYTHON, "-m", "lab.standins.mysql", "--ping", address]
    words = [
        address if word in _LOCAL else word.replace("=127.0.0.1", f"={address}") for word in args
    ]
    if not any(word.startswith(("--host", "-h")) for word in words):
        words.insert(0, f"--host={address}")
    return [program, *words]


def _pilot_agent(args: Sequence[str], address: str) -> list[str]:
    """Asks the proxy's admin API, as `pilot-agent request GET stats?filter=x` does."""
    if len(args) != 3 or args[0] != "request":
        return ["sh", "-c", "echo 'usage: pilot-agent request GET|POST PATH' >&2; exit 1"]
    url = f"http://{address}:15000/{args[2].lstrip('/')}"
    return ["curl", "--silent", "--show-error", "--globoff", "--request", args[1], url]


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _place(host: str, port: int, caller: Caller) -> tuple[str, int] | None:
    """Returns the end of a direct connection to `host:port`; None leaves it to the machine."""
    if host in _LOCAL:
        return caller.own, port
    if _is_address(host):
        return None
    service = service_kind.named(host, caller.pod.namespace, caller.services)
    if service is None:
        return None
    for item in service.ports:
        if item.port != port:
            continue
        if caller.captured and item.protocol in ("TCP", "TLS"):
            return caller.own, port
        if ready := ready_endpoints(service, item, caller.pods):
            chosen = random.choice(ready)  # noqa: S311 - load balancing
            return chosen.address, chosen.port
    return caller.own, _NOWHERE


def _urls(args: Sequence[str]) -> Iterator[str]:
    """Yields the URLs of a curl command line: words that are no option and no option's value."""
    words = iter(args)
    for word in words:
        if word == "--url":
            yield next(words, "")
        elif word.startswith("--"):
            if "=" not in word and not _CURL_FLAG.fullmatch(word):
                next(words, None)
        elif word.startswith("-") and len(word) > 1:
            for index, letter in enumerate(word[1:], 1):
                if letter in _CURL_SHORT:
                    if index == len(word) - 1:
                        next(words, None)
                    break
        else:
            yield word


def _curl(args: Sequence[str], caller: Caller) -> list[str]:
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
        proxied = caller.captured and parts.scheme in ("http", "https") and host not in _LOCAL
        if proxied or (host, port) in resolved:
            continue
        if (place := _place(host, port, caller)) is not None:
            extra += ["--connect-to", f"{host}:{port}:{place[0]}:{place[1]}"]
    for host, port, address in _resolutions(args):
        target = bindable(address, port) if _is_address(address) else port
        if caller.captured:
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


def _openssl(args: Sequence[str], caller: Caller) -> list[str]:
    words = list(args)
    if "-connect" not in words or words.index("-connect") + 1 >= len(words):
        return words
    index = words.index("-connect") + 1
    host, _, text = words[index].rpartition(":")
    if not text.isdigit():
        return words
    if not _is_address(host) and not {"-servername", "-noservername"} & set(words):
        words += ["-servername", host]
    if caller.captured and host not in _LOCAL:
        return [*words, "-proxy", f"{caller.own}:15001"]
    if (place := _place(host, int(text), caller)) is not None:
        words[index] = f"{place[0]}:{place[1]}"
    return words
