"""token: JSON Web Tokens for requests, and the key set that checks them."""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any

import typer

from lab import durations
from lab.cli.client import FailureError
from lab.cli.context import settings
from lab.cli.output import write


def token(
    context: typer.Context,
    issuer: Annotated[str, typer.Option(help="The claim iss.")] = "testing@secure.istio.io",
    subject: Annotated[str, typer.Option(help="The claim sub.")] = "testing@secure.istio.io",
    audience: Annotated[
        list[str] | None, typer.Option(help="The claim aud; may be given again.")
    ] = None,
    claim: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=VALUE", help="Another claim; VALUE is JSON or plain text."),
    ] = None,
    expires_in: Annotated[str, typer.Option(help="The lifetime, as 30s or 1h.")] = "1h",
    expired: Annotated[bool, typer.Option("--expired", help="Expired an hour ago.")] = False,
    wrong_key: Annotated[
        bool, typer.Option("--wrong-key", help="Signed with a key that no key set has.")
    ] = False,
    jwks: Annotated[
        bool, typer.Option("--jwks", help="Print the public key set instead of a token.")
    ] = False,
    manifest: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Print this manifest with the public key set in place of its empty ones.",
        ),
    ] = None,
) -> None:
    """Print a JSON Web Token, or the public keys that a RequestAuthentication needs to check it.

    The key is made on first use and kept in the lab's state folder. No lab has to run.

    Examples:
      guestbook token
      guestbook token --subject somebody@example.com --claim 'groups=["admins"]'
      guestbook token --manifest istio/15-jwt/request-authentication.yaml | guestbook apply -f -
      curl -H "Authorization: Bearer $(guestbook token)" http://localhost:8080/
    """
    from lab.istiod import tokens

    try:
        signer = tokens.key(settings(context).state_folder() / "jwt")
    except OSError as error:
        raise FailureError(f"can't keep a key: {error}") from None
    if jwks:
        write(tokens.key_set(signer))
        return
    if manifest is not None:
        write(_filled(manifest, tokens.key_set(signer)), end="")
        return
    issued, lifetime = datetime.now(UTC), _lifetime(expires_in)
    if expired:
        issued, lifetime = issued - timedelta(hours=2), timedelta(hours=1)
    write(
        tokens.mint(
            tokens.new_key() if wrong_key else signer,
            issued,
            issuer=issuer,
            subject=subject,
            audiences=audience or (),
            lifetime=lifetime,
            claims=dict(_claim(text) for text in claim or ()),
            kid=tokens.key_id(signer),
        )
    )


def _lifetime(text: str) -> timedelta:
    try:
        return durations.parse(text)
    except ValueError as error:
        raise FailureError(f"--expires-in: {error}") from None


def _claim(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise FailureError(f'--claim {text}: write it as NAME=VALUE, for example groups=["admins"]')
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value


def _filled(manifest: Path, keys: str) -> str:
    import yaml

    from lab.istiod.tokens import NoPlaceError, filled

    try:
        text = sys.stdin.read() if str(manifest) == "-" else manifest.read_text()
        return filled(text, keys)
    except (OSError, UnicodeDecodeError, NoPlaceError, yaml.YAMLError) as error:
        raise FailureError(f"{manifest}: {error}") from None
