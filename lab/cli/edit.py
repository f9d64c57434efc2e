"""edit: an object in your editor."""

from __future__ import annotations

import os
import shlex
import subprocess
import tempfile
from pathlib import Path
from typing import Annotated, Any

import typer

from lab.cli import references
from lab.cli.apply import told
from lab.cli.client import Client, FailureError
from lab.cli.context import Namespace, Workloads, client, namespace
from lab.cli.output import Json, write, yaml_text

HEAD = """\
# Please edit the object below. Lines beginning with a '#' will be ignored,
# and an empty file will abort the edit.
#
"""


EDITED = "(edited)"
"""The name of the text for the lab, which keeps no file."""


def edit(
    context: typer.Context,
    target: Workloads,
    namespace_: Namespace = None,
    output: Annotated[str, typer.Option("--output", "-o", help="yaml.")] = "yaml",
) -> None:
    """Change an object in the editor of $KUBE_EDITOR, else of $EDITOR, else vi.

    What you save is applied. If it has a problem nothing is changed, and your
    text is kept in a file.

    Examples:
      guestbook edit virtualservice message
      KUBE_EDITOR=nano guestbook edit deploy/ui
    """
    if output != "yaml":
        raise FailureError(f"unknown output {output}: yaml")
    lab, where = client(context), namespace(context, namespace_)
    for kind, name in references.each(target):
        found = lab.call("objects", kinds=[kind], namespace=where, names=[name])
        _edit(lab, found["items"][0])


def _edit(lab: Client, item: Json) -> None:
    before = HEAD + yaml_text({key: value for key, value in item.items() if key != "status"}) + "\n"
    handle, name = tempfile.mkstemp(prefix="guestbook-edit-", suffix=".yaml")
    os.close(handle)
    file = Path(name)
    file.write_text(before, encoding="utf-8")
    editor = os.environ.get("KUBE_EDITOR") or os.environ.get("EDITOR") or "vi"
    done = subprocess.run([*shlex.split(editor), name], check=False)
    after = file.read_text(encoding="utf-8")
    if done.returncode:
        file.unlink()
        raise FailureError(f"there was a problem with the editor {editor!r}")
    if after == before or not _content(after):
        file.unlink()
        write("Edit cancelled, no changes made.")
        return
    try:
        if not _is_text_of(item, after):
            raise FailureError(
                "at least one of apiVersion, kind, name and namespace was changed, or it is not "
                "one object"
            )
        answer = lab.call("apply", files=[(EDITED, after)], manner="replace")
        if answer["refused"]:
            raise FailureError(*(reason for _, reason in answer["refused"]))
    except FailureError as error:
        lines = (line.replace(EDITED, name) for line in error.lines)
        kept = f"A copy of your changes has been stored to {name!r}"
        raise FailureError(*lines, kept) from None
    file.unlink()
    told(answer, words={"configured": "edited"})


def _content(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.strip() and not line.startswith("#")]


def _is_text_of(item: Json, text: str) -> bool:
    """Returns whether a text is one object, and this one; also for no YAML, which the lab tells."""
    from lab.resources.document import DocumentError, documents

    try:
        values = [document.value for document in documents(text)]
    except DocumentError:
        return True
    return [_identity(value) for value in values] == [_identity(item)]


def _identity(value: Any) -> tuple[Any, ...]:
    head = value if isinstance(value, dict) else {}
    metadata = head.get("metadata")
    named = metadata if isinstance(metadata, dict) else {}
    return head.get("apiVersion"), head.get("kind"), named.get("name"), named.get("namespace")
