"""The address of the database, from the environment."""

from __future__ import annotations

from pathlib import Path

import pytest

from services.common.settings import load
from services.guestbook.settings import Settings


def url(**environ: str) -> str:
    return load(Settings, environ).url().render_as_string(hide_password=False)


def test_defaults_are_those_of_the_manifests() -> None:
    assert url() == "mysql+pymysql://guestbook@mysql:3306/guestbook"


def test_mysql_settings() -> None:
    environ = {
        "MYSQL_HOST": "db.example",
        "MYSQL_PORT": "3307",
        "MYSQL_DATABASE": "messages",
        "MYSQL_USER": "me",
        "MYSQL_PASSWORD": "p@ss/word",
    }
    assert url(**environ) == "mysql+pymysql://me:p%40ss%2Fword@db.example:3307/messages"


def test_a_service_link_is_not_a_port() -> None:
    assert url(MYSQL_PORT="tcp://10.0.0.1:3306").endswith("@mysql:3306/guestbook")


def test_database_url_wins() -> None:
    assert url(DATABASE_URL="sqlite:////tmp/a.db", MYSQL_HOST="x") == "sqlite:////tmp/a.db"


def test_the_password_may_be_in_a_file(tmp_path: Path) -> None:
    path = tmp_path / "password"
    path.write_text("secret\n")
    assert ":secret@" in url(MYSQL_PASSWORD_FILE=str(path))
    assert ":wins@" in url(MYSQL_PASSWORD_FILE=str(path), MYSQL_PASSWORD="wins")


@pytest.mark.parametrize(
    ("environ", "words"),
    [
        ({"DATABASE_URL": "nonsense"}, "DATABASE_URL mysql+pymysql:// sqlite:///"),
        ({"DATABASE_URL": "postgresql://a:hidden@b/c"}, "DATABASE_URL mysql+pymysql://"),
        ({"DATABASE_URL": "sqlite://"}, "DATABASE_URL sqlite:////absolute"),
        ({"DATABASE_URL": "mysql+pymysql://host"}, "DATABASE_URL DATABASE"),
        ({"MYSQL_PORT": "x"}, "MYSQL_PORT 'x' 65535"),
        ({"MYSQL_PASSWORD_FILE": "/nowhere"}, "MYSQL_PASSWORD_FILE '/nowhere' No such file"),
    ],
)
def test_a_bad_value_stops_with_one_line(
    environ: dict[str, str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        load(Settings, environ)
    assert stopped.value.code == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "hidden@" not in error
    for word in words.split():
        assert word in error
