"""`guestbook token`: what is printed, that a proxy's rules take it, and where the key is."""

from __future__ import annotations

import json
import stat
import time
from pathlib import Path

import jwt
import pytest

from lab.cli import app
from lab.manifests.load import parse
from tests.support.repository import ROOT

MANIFEST = ROOT / "istio" / "15-jwt" / "request-authentication.yaml"


@pytest.fixture
def run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    return Run(tmp_path / "state", capsys)


class Run:
    """The command line with a state folder of its own."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder = folder
        self.capsys = capsys

    def __call__(self, *arguments: str, status: int = 0) -> str:
        assert app.run(["--state", str(self.folder), "token", *arguments]) == status
        out, err = self.capsys.readouterr()
        return err if status else out

    def keys(self) -> jwt.PyJWKSet:
        return jwt.PyJWKSet.from_json(self("--jwks"))


def claims(token: str, keys: jwt.PyJWKSet, **options: object) -> dict[str, object]:
    token = token.strip()
    header = jwt.get_unverified_header(token)
    return jwt.decode(token, keys[header["kid"]], algorithms=["RS256"], **options)  # type: ignore[arg-type]


def test_a_token_verifies_with_the_printed_keys(run: Run) -> None:
    said = claims(run(), run.keys())
    assert said["iss"] == said["sub"] == "testing@secure.istio.io"
    assert 3590 < int(str(said["exp"])) - time.time() <= 3600


def test_its_claims_are_as_asked(run: Run) -> None:
    token = run(
        "--issuer", "i@x", "--subject", "s@x", "--audience", "a", "--audience", "b",
        "--claim", 'groups=["admins"]', "--claim", "name=Ann Other", "--expires-in", "90s",
    )  # fmt: skip
    said = claims(token, run.keys(), audience="b")
    assert (said["iss"], said["sub"], said["aud"]) == ("i@x", "s@x", ["a", "b"])
    assert (said["groups"], said["name"]) == (["admins"], "Ann Other")
    assert int(str(said["exp"])) - int(str(said["iat"])) == 90


def test_a_bad_one_is_bad_in_one_way_only(run: Run) -> None:
    with pytest.raises(jwt.ExpiredSignatureError):
        claims(run("--expired"), run.keys())
    with pytest.raises(jwt.InvalidSignatureError):
        claims(run("--wrong-key"), run.keys())


def test_a_manifest_gets_the_keys_and_stays_otherwise_as_it_is(run: Run) -> None:
    printed = run("--manifest", str(MANIFEST))
    before, after = MANIFEST.read_text().splitlines(), printed.splitlines()
    changed = [line for line, was in zip(after, before, strict=True) if line != was]
    assert len(changed) == 1
    loaded = parse([("-", printed)])
    (rule,) = loaded.resources[0].spec.jwt_rules
    claims(run(), jwt.PyJWKSet.from_json(rule.jwks))
    assert loaded.warnings == ()
    assert any(
        "the key set is empty" in line for line in parse([("-", MANIFEST.read_text())]).warnings
    )


def test_the_private_key_is_the_owners_alone_and_is_never_printed(run: Run) -> None:
    printed = run("--jwks") + run("--manifest", str(MANIFEST))
    assert not {"d", "p", "q"} & set(json.loads(printed.splitlines()[0])["keys"][0])
    file = run.folder / "jwt" / "key.pem"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
    assert stat.S_IMODE(run.folder.stat().st_mode) == 0o700


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["--claim", "x"], "write it as NAME=VALUE"),
        (["--expires-in", "5"], "is not a duration"),
        (["--manifest", "nowhere.yaml"], "nowhere.yaml"),
        (["--manifest", str(MANIFEST.with_name("ui-viewer.yaml"))], "no RequestAuthentication"),
    ],
)
def test_a_mistake_is_one_line(run: Run, arguments: list[str], problem: str) -> None:
    error = run(*arguments, status=1)
    assert problem in error
    assert error.startswith("Error: ")
    assert error.count("\n") == 1
