"""create secret generic and create secret tls."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from lab.cli.client import FailureError
from lab.cli.context import DryRun, Namespace
from lab.cli.made import EnvFiles, Literals, Output, Sources, content, data, make

secret = typer.Typer(help="Create a Secret.", no_args_is_help=True)

FAILED = "failed to create secret "
"""The beginning of the error about a Secret that is there."""


@secret.command()
def generic(
    context: typer.Context,
    name: str,
    from_literal: Literals = None,
    from_file: Sources = None,
    from_env_file: EnvFiles = None,
    type_: Annotated[str, typer.Option("--type", help="The type; Opaque without one.")] = "",
    dry_run: DryRun = "none",
    output: Output = None,
    namespace_: Namespace = None,
) -> None:
    """Create a Secret from literals and files.

    Examples:
      guestbook create secret generic login --from-literal=password=guess
      guestbook create secret generic shop -n istio-system --from-file=tls.crt=shop.crt --from-file=tls.key=shop.key --from-file=ca.crt=ca.crt
    """  # noqa: E501
    item = _secret(name, data("Secret", from_literal, from_file, from_env_file), type_)
    make(context, item, dry_run, output, namespace=namespace_, failed=FAILED)


@secret.command()
def tls(
    context: typer.Context,
    name: str,
    cert: Annotated[str, typer.Option(help="The file of the certificate, PEM.")] = "",
    key: Annotated[str, typer.Option(help="The file of its private key, PEM.")] = "",
    dry_run: DryRun = "none",
    output: Output = None,
    namespace_: Namespace = None,
) -> None:
    """Create a Secret of a certificate and its private key, as a Gateway names it.

    Example:
      guestbook create secret tls shop -n istio-system --cert=shop.crt --key=shop.key
    """
    if not key or not cert:
        raise FailureError("key and cert must be specified")
    failed = "Cannot read file {path}, open {path}: {reason}"
    chain, private = (content(Path(file), failed) for file in (cert, key))
    _require_pair(chain, private)
    item = _secret(name, {"tls.crt": chain, "tls.key": private}, "kubernetes.io/tls")
    make(context, item, dry_run, output, namespace=namespace_, failed=FAILED)


def _secret(name: str, values: Mapping[str, bytes], type_: str) -> dict[str, Any]:
    item: dict[str, Any] = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}}
    if type_:
        item["type"] = type_
    if values:
        item["data"] = {key: base64.b64encode(value).decode() for key, value in values.items()}
    return item


def _require_pair(chain: bytes, key: bytes) -> None:
    """Raises FailureError, with Go's words, when a certificate and a private key don't fit."""
    from lab.kinds.gateway.becomes import are_pair

    for text, what in ((chain, "certificate"), (key, "key")):
        if b"-----BEGIN " not in text:
            raise FailureError(f"tls: failed to find any PEM data in {what} input")
    if b"PRIVATE KEY-----" in chain and b"-----BEGIN CERTIFICATE-----" not in chain:
        raise FailureError(
            "tls: failed to find certificate PEM data in certificate input, but did find a "
            "private key; PEM inputs may have been switched"
        )
    if b"PRIVATE KEY-----" not in key:
        raise FailureError(
            "tls: found a certificate rather than a key in the PEM for the private key"
        )
    if not are_pair(chain, key):
        raise FailureError("tls: private key does not match public key")
