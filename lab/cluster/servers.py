"""MySQL and Redis of a lab: the user's own, those installed here, or the stand-ins."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping

from lab.cluster.state import State
from lab.standins import EMBEDDED, mysql
from lab.standins import redis as redis_server


def database(environ: Mapping[str, str]) -> str:
    """Returns the store of the guestbook's messages: external, mariadb, mysql or sqlite."""
    if environ.get("DATABASE_URL"):
        return "external"
    server = mysql.installed()
    if server is None:
        return "sqlite"
    return "mariadb" if mysql.is_mariadb(server) else "mysql"


def redis(environ: Mapping[str, str]) -> str:
    """Returns the store of the ui's sessions: external, the path of a server, or embedded."""
    if environ.get("REDIS_HOST"):
        return "external"
    return redis_server.installed() or "embedded"


def overrides(
    state: State, environ: Mapping[str, str]
) -> Callable[[Mapping[str, str]], dict[str, str]]:
    """Returns the function from a container's variables to those that replace them.

    They name the user's own servers, and SQLite where no MySQL is installed.
    """
    url = environ.get("DATABASE_URL", "")
    if not url and database(environ) == "sqlite":
        url = f"sqlite:///{state.volumes}/guestbook.sqlite"
    cache = {name: environ[name] for name in ("REDIS_HOST", "REDIS_PORT") if environ.get(name)}

    def chosen(env: Mapping[str, str]) -> dict[str, str]:
        values = {EMBEDDED: "1"} if environ.get(EMBEDDED) else {}
        if url and "MYSQL_DATABASE" in env:
            values["DATABASE_URL"] = url
        if cache.get("REDIS_HOST") and "REDIS_HOST" in env:
            values |= {"REDIS_PORT": "6379"} | cache
        return values

    return chosen


def credentials(namespace: str = "default") -> tuple[str, str]:
    """Returns the Secret that the MySQL manifests expect, with new passwords."""
    text = (
        "apiVersion: v1\nkind: Secret\nmetadata:\n  name: mysql-credentials\n"
        f"  namespace: {namespace}\nstringData:\n"
        f'  root-password: "{secrets.token_hex(16)}"\n  password: "{secrets.token_hex(16)}"\n'
    )
    return "(generated)", text
