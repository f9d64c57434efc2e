"""Objects made from the words of a command, and the data that files and literals give them."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated

import typer

from lab.cli.apply import told
from lab.cli.client import FailureError
from lab.cli.context import DRY_RUNS, asked_namespace, client, dry
from lab.cli.output import Json, reference, warn, write


def _known_form(form: str | None) -> str | None:
    """Returns the value of -o. Raises FailureError for an unknown one, before anything changes."""
    from lab.cli.jsonpath import evaluate

    kind, _, template = (form or "").partition("=")
    if kind == "jsonpath":
        evaluate(template, {})
    elif form not in (None, "", "json", "yaml", "name"):
        raise FailureError(
            f"unable to match a printer suitable for the output format {form!r}; "
            "allowed: json, yaml, name, jsonpath=TEMPLATE"
        )
    return form


Output = Annotated[
    str | None,
    typer.Option(
        "--output", "-o", help="yaml, json, name or jsonpath=TEMPLATE.", callback=_known_form
    ),
]
Literals = Annotated[
    list[str] | None, typer.Option("--from-literal", metavar="KEY=VALUE", help="A key, as it is.")
]
Sources = Annotated[
    list[str] | None,
    typer.Option(
        "--from-file", metavar="[KEY=]PATH", help="A file, or a folder with a file for each key."
    ),
]
EnvFiles = Annotated[
    list[str] | None,
    typer.Option("--from-env-file", metavar="PATH", help="A file of lines NAME=VALUE."),
]


def make(
    context: typer.Context,
    item: Json,
    dry_run: str,
    output: str | None,
    *,
    namespace: str | None = None,
    failed: str = "",
) -> None:
    """Creates an object and prints it; `failed` begins the error about one that is there.

    With --dry-run=client the lab isn't asked, and need not run.
    """
    if where := asked_namespace(context, namespace):
        item["metadata"] |= {"namespace": where}
    answer: Json = {"results": [(reference(item), "created")], "warnings": (), "refused": ()}
    if not dry(dry_run) or dry_run == "server":
        files = [("(command line)", item)]
        answer = client(context).call("apply", files=files, manner="create", dry_run=dry(dry_run))
    for _, reason in answer["refused"]:
        raise FailureError(f"{failed}{reason}", existing=not failed)
    tell({**answer, "item": item}, ("created", "created"), dry_run, output)


def tell(answer: Json, words: tuple[str, str], dry_run: str, output: str | None) -> None:
    """Prints what was done, in one word for a change and one for none, or the object.

    Raises FailureError when an Envoy refused it.
    """
    from lab.cli.get import formatted

    if output:
        for line in answer["warnings"]:
            warn(line)
        write(formatted([answer["item"]], output, single=True, headers=True))
        answer = {**answer, "warnings": (), "results": ()}
    told(answer, DRY_RUNS[dry_run], dict(zip(("configured", "unchanged"), words, strict=True)))


def data(
    kind: str,
    literals: Sequence[str] | None,
    sources: Sequence[str] | None,
    env_files: Sequence[str] | None,
) -> dict[str, bytes]:
    """Returns the values of a ConfigMap or a Secret by key. Raises FailureError."""
    if env_files and (literals or sources):
        raise FailureError("from-env-file cannot be combined with from-file or from-literal")
    found: dict[str, bytes] = {}
    for key, value in [
        *(_literal(text) for text in literals or ()),
        *(pair for source in _split(sources) for pair in _files(source)),
        *(pair for file in _split(env_files) for pair in _variables(file, kind)),
    ]:
        if not re.fullmatch(r"(?!\.\.?$|\.\.)[-._a-zA-Z0-9]{1,253}", key):
            raise FailureError(
                f'"{key}" is not a valid key name for a {kind}: a valid config key must consist '
                "of alphanumeric characters, '-', '_' or '.'"
            )
        if key in found:
            raise FailureError(f"cannot add key {key}, another key by that name already exists")
        found[key] = value
    return found


def _split(values: Sequence[str] | None) -> list[str]:
    parts = [part for value in values or () for part in value.split(",")]
    if "" in parts:
        raise FailureError("a path of --from-file or --from-env-file is empty")
    return parts


def _literal(text: str) -> tuple[str, bytes]:
    key, equals, value = text.partition("=")
    if not key or not equals:
        raise FailureError(f"invalid literal source {text}, expected key=value")
    return key, value.encode(errors="surrogateescape")


def _files(source: str) -> Iterator[tuple[str, bytes]]:
    """Yields the file of a source, or those of a folder, each with its key."""
    key, equals, name = source.partition("=")
    if "=" in name:
        raise FailureError("key names or file paths cannot contain '='")
    if equals and not (key and name):
        missing = f"file path for key name {key}" if key else f"key name for file path {name}"
        raise FailureError(f"{missing} missing")
    path = Path(name if equals else source)
    if not path.is_dir():
        yield key if equals else path.name, content(path)
    elif equals:
        raise FailureError("cannot give a key name for a directory path")
    else:
        for file in sorted(path.iterdir()):
            if file.is_file() and not file.is_symlink():
                yield file.name, content(file)


def content(path: Path, failed: str = "error reading {path}: {reason}") -> bytes:
    """Returns the bytes of a file. Raises FailureError in kubectl's words."""
    try:
        return path.read_bytes()
    except OSError as error:
        reason = str(error.strerror).lower()
        raise FailureError(failed.format(path=path, reason=reason)) from None


def _variables(file: str, kind: str) -> Iterator[tuple[str, bytes]]:
    """Yields the variables of a file; one without a value has that of this environment."""
    if Path(file).is_dir():
        what = "secret" if kind == "Secret" else "config"
        raise FailureError(f"env {what} file cannot be a directory")
    text = content(Path(file)).decode("utf-8-sig", errors="surrogateescape")
    for line in text.split("\n"):
        name, equals, value = line.removesuffix("\r").lstrip().partition("=")
        if not name.startswith("#") and (name or equals):
            require_variable(name)
            given = value if equals else os.environ.get(name, "")
            yield name, given.encode(errors="surrogateescape")


def require_variable(name: str) -> None:
    """Raises FailureError for what is no name of an environment variable."""
    if not re.fullmatch(r"(?!\.\.?$|\.\.)[-._a-zA-Z][-._a-zA-Z0-9]*", name):
        raise FailureError(
            f'"{name}" is not a valid key name: a valid environment variable name must consist of '
            "alphabetic characters, digits, '_', '-', or '.', and must not start with a digit"
        )
