"""`python -m lab.standins.redis ARGS`: redis-server or valkey-server, else an embedded server.

Takes redis-server's options. Listens on $HOST.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
from types import FrameType

from lab.standins import EMBEDDED

SERVERS = ("redis-server", "valkey-server")


def installed() -> str | None:
    """The real server on this machine, if there is one and it is wanted."""
    if os.environ.get(EMBEDDED):
        return None
    return next((found for name in SERVERS if (found := shutil.which(name))), None)


def _embedded(host: str, port: int) -> None:
    from fakeredis import TcpFakeServer

    def stop(_number: int, _frame: FrameType | None) -> None:
        sys.exit(0)

    signal.signal(signal.SIGTERM, stop)
    server = TcpFakeServer((host, port), server_type="redis")
    sys.stdout.write(f"Embedded stand-in for Redis (fakeredis), listening on {host}:{port}\n")
    sys.stdout.flush()
    server.serve_forever()


def main() -> None:
    """Become the real server, or serve."""
    host = os.environ.get("HOST", "127.0.0.1")
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
