"""`python -m lab.standins.redis ARGS`: redis-server or valkey-server, else an embedded server.

Takes redis-server's options. Listens on $HOST.
"""

from __future__ import annotations

import os
import signal
import sys

from lab import standins

SERVERS = ("redis-server", "valkey-server")


def installed() -> str | None:
    """Returns the real server on this machine, if there is one and it is wanted."""
    return standins.installed(SERVERS)


def _embedded(host: str, port: int) -> None:
    from fakeredis import TcpFakeServer

    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    server = TcpFakeServer((host, port), server_type="redis")
    standins.say(f"Embedded stand-in for Redis (fakeredis), listening on {host}:{port}")
    server.serve_forever()


def main() -> None:
    """Becomes the real server, or serves."""
    host = os.environ.get("HOST", "0.0.0.0")
    args = sys.argv[1:]
    port = args[args.index("--port") + 1] if "--port" in args else "6379"
    server = installed()
    if server is None:
        _embedded(host, int(port))
        return
    # The working folder is the container's: nothing is written elsewhere.
    os.execv(server, [server, *args, "--bind", host, "--dir", os.getcwd()])  # noqa: S606, PTH109


if __name__ == "__main__":
    main()
