"""`python -m lab.standins.mysql ARGS`: a private mysqld or mariadbd, set up like the mysql image.

The data is in `$GUESTBOOK_ROOT/var/lib/mysql`. `MYSQL_DATABASE`, `MYSQL_USER`, `MYSQL_PASSWORD`
and `MYSQL_ROOT_PASSWORD`, also with `_FILE` behind them, are those of the image. Where no server is
installed, a placeholder holds the port and the guestbook uses SQLite. `--ping HOST` checks that it
listens.
"""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from lab import standins

PORT = 3306
SERVERS = ("mariadbd", "mysqld")
_SEARCH = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/usr/local/sbin:/usr/libexec"

_MYSQL_ONLY = ("--mysqlx", "--default-authentication-plugin", "--authentication-policy")
"""Options of the mysql image's server that MariaDB doesn't have."""


def installed() -> str | None:
    """Returns the real server on this machine, if there is one and it is wanted."""
    return standins.installed(SERVERS, _SEARCH)


def serves(environ: Mapping[str, str]) -> bool:
    """Returns whether a real server runs in a container with this environment."""
    return installed() is not None and not (
        environ.get("DATABASE_URL") or environ.get(standins.EMBEDDED)
    )


def is_mariadb(server: str) -> bool:
    """Returns whether a server is MariaDB's, as Debian's mysqld is."""
    return "mariadb" in Path(server).resolve().name


def _quote(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


def _password(environ: Mapping[str, str], name: str) -> str:
    """Returns a variable's value, or the content of the file that `<name>_FILE` names."""
    if file := environ.get(f"{name}_FILE"):
        return Path(file).read_text(encoding="utf-8").rstrip("\n")
    return environ.get(name, "")


def _initial_sql(environ: dict[str, str]) -> str:
    """Returns SQL for each start that makes the database, the user and the passwords."""
    lines = []
    database = environ.get("MYSQL_DATABASE", "")
    name = database.replace("`", "``")
    if database:
        lines.append(f"CREATE DATABASE IF NOT EXISTS `{name}` CHARACTER SET utf8mb4;")
    if user := environ.get("MYSQL_USER"):
        who = f"{_quote(user)}@'%'"
        password = _quote(_password(environ, "MYSQL_PASSWORD"))
        lines.append(f"CREATE USER IF NOT EXISTS {who} IDENTIFIED BY {password};")
        lines.append(f"ALTER USER {who} IDENTIFIED BY {password};")
        if database:
            lines.append(f"GRANT ALL ON `{name}`.* TO {who};")
    if root := _password(environ, "MYSQL_ROOT_PASSWORD"):
        password = _quote(root)
        lines.append(f"CREATE USER IF NOT EXISTS 'root'@'%' IDENTIFIED BY {password};")
        lines.append(f"ALTER USER 'root'@'%' IDENTIFIED BY {password};")
        lines.append(f"ALTER USER 'root'@'localhost' IDENTIFIED BY {password};")
        lines.append("GRANT ALL ON *.* TO 'root'@'%' WITH GRANT OPTION;")
        # MariaDB makes these as well, without a password; they would come before root@%.
        hosts = ("127.0.0.1", "::1", socket.gethostname())
        lines += [f"DROP USER IF EXISTS 'root'@{_quote(host)};" for host in hosts]
    return "\n".join(lines) + "\n"


def _initialise(server: str, data: Path, user: list[str]) -> None:
    """Makes the system tables in an empty folder; an unfinished one is made again."""
    # The servers take a folder as empty when its files begin with a dot.
    unfinished = data / ".initialising"
    if (data / "mysql").is_dir() and not unfinished.exists():
        return
    standins.say("Initialising the database (once)")
    for path in data.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()
    unfinished.touch()
    if is_mariadb(server):
        install = shutil.which("mariadb-install-db") or "mysql_install_db"
        command = [
            install,
            "--no-defaults",
            f"--datadir={data}",
            "--skip-test-db",
            "--skip-name-resolve",
            "--auth-root-authentication-method=normal",
            *user,
        ]
    else:
        command = [server, "--no-defaults", f"--datadir={data}", "--initialize-insecure", *user]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode != 0:
        sys.exit(f"{command[0]} failed:\n{result.stdout}{result.stderr}")
    unfinished.unlink()


def _serve(server: str) -> None:
    host = os.environ.get("HOST", "0.0.0.0")
    root = Path(os.environ.get("GUESTBOOK_ROOT", ".")).absolute()
    data = (root / "var/lib/mysql").resolve()
    data.mkdir(parents=True, exist_ok=True)
    user = [f"--user={pwd.getpwuid(0).pw_name}"] if os.geteuid() == 0 else []
    _initialise(server, data, user)
    initial = Path("init.sql").absolute()
    initial.touch(mode=0o600)
    initial.write_text(_initial_sql(dict(os.environ)), encoding="utf-8")
    args = sys.argv[1:]
    if is_mariadb(server):
        args = [arg for arg in args if not arg.startswith(_MYSQL_ONLY)]
    command = [
        server,
        "--no-defaults",
        f"--datadir={data}",
        # Relative to the data: the path of a socket may not be longer than about 100 characters.
        "--socket=mysqld.sock",
        "--pid-file=mysqld.pid",
        f"--init-file={initial}",
        f"--bind-address={host}",
        f"--port={PORT}",
        "--skip-name-resolve",
        "--performance-schema=OFF",
        "--max-connect-errors=4294967295",
        "--character-set-server=utf8mb4",
        *([] if is_mariadb(server) else ["--mysqlx=OFF"]),
        *user,
        *args,
    ]
    os.execv(server, command)  # noqa: S606


def _placeholder() -> None:
    host = os.environ.get("HOST", "0.0.0.0")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    with socket.create_server((host, PORT)) as server:
        url = os.environ.get("DATABASE_URL", "").partition(":")[0] or "SQLite"
        standins.say(f"A placeholder for MySQL: the guestbook uses {url}")
        while True:
            connection, _ = server.accept()
            connection.close()


def main() -> None:
    """Serves until SIGTERM, or checks with `--ping`."""
    if sys.argv[1:2] == ["--ping"]:
        try:
            socket.create_connection((sys.argv[2], PORT), 2).close()
        except OSError as error:
            sys.exit(f"{sys.argv[2]}:{PORT}: {error}")
        return
    server = installed()
    if server is not None and serves(os.environ):
        _serve(server)
    else:
        _placeholder()


if __name__ == "__main__":
    main()
