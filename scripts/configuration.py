"""Writes docs/configuration.md from the typed settings: `python -m scripts.configuration`.

With `--check` it writes nothing and ends with status 1 when the file is stale.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from services.common.settings import CommonSettings, allowed

SERVICES = ("ui", "message", "guestbook")
PAGE = Path(__file__).parents[1] / "docs" / "configuration.md"

NAMED = {"otel_service_name"}
"""Settings that every service has with a default of its own."""

INTRODUCTION = """\
# Configuration

<!-- Written by `python -m scripts.configuration` from services/*/settings.py. -->

The services read environment variables, once, at start. An empty variable counts as not set. A
value that is not allowed stops the service with status 2 and one line that names the variable, its
value and what is allowed. A port that Kubernetes fills with a service link
(`REDIS_PORT=tcp://10.0.0.1:6379`) counts as not set.

With span export on, OpenTelemetry's own variables (`OTEL_TRACES_SAMPLER`,
`OTEL_RESOURCE_ATTRIBUTES`, …) work too. The ui's calls of the other two services honour
`http_proxy` and `no_proxy`.
"""

HEADER = "| variable | default | allowed | what it is |\n| --- | --- | --- | --- |\n"


def page() -> str:
    """The whole page, as Markdown."""
    parts = [INTRODUCTION, "\n## Every service\n\n", HEADER, *_rows(CommonSettings, NAMED)]
    for name in SERVICES:
        settings = settings_class(name)
        parts += [f"\n## {name}\n\n", HEADER, *_rows(settings, _unchanged(settings))]
    return "".join(parts)


def settings_class(service: str) -> type[CommonSettings]:
    """The settings of a service, found by name: services.common depends on no service."""
    found: type[CommonSettings] = importlib.import_module(f"services.{service}.settings").Settings
    return found


def _unchanged(settings: type[CommonSettings]) -> set[str]:
    return {
        name
        for name, field in CommonSettings.model_fields.items()
        if settings.model_fields[name].default == field.default
    }


def _rows(settings: type[CommonSettings], left_out: set[str]) -> list[str]:
    schemas = settings.model_json_schema()["properties"]
    texts = descriptions(settings)
    return [
        f"| `{name.upper()}` | {_default(field)} | {allowed(schemas[name])} "
        f"| {_cell(texts.get(name))} |\n"
        for name, field in settings.model_fields.items()
        if name not in left_out
    ]


def descriptions(settings: type[CommonSettings]) -> dict[str, str]:
    """The description of each setting: that of its field, or the docstring below it."""
    found: dict[str, str] = {}
    for cls in settings.__mro__:
        if issubclass(cls, CommonSettings):
            (definition,) = ast.parse(inspect.getsource(cls)).body
            assert isinstance(definition, ast.ClassDef)  # noqa: S101
            for statement, text in pairwise(definition.body):
                match statement, text:
                    case (
                        ast.AnnAssign(target=ast.Name(id=name)),
                        ast.Expr(value=ast.Constant(value=str(docstring))),
                    ):
                        found.setdefault(name, inspect.cleandoc(docstring))
    fields = settings.model_fields.items()
    return found | {name: field.description for name, field in fields if field.description}


def _default(field: FieldInfo) -> str:
    default: Any = field.default
    if field.default_factory is not None:
        return "set at start"
    if default is None or default is PydanticUndefined:
        return "–"
    return f"`{default:g}`" if isinstance(default, float | int) else f"`{default}`"


def _cell(text: str | None) -> str:
    return (text or "").replace("|", "\\|").replace("\n", " ")


def main(arguments: list[str]) -> int:
    if arguments == ["--check"]:
        return 0 if PAGE.exists() and PAGE.read_text(encoding="utf-8") == page() else 1
    if arguments:
        print("usage: python -m scripts.configuration [--check]", file=sys.stderr)
        return 2
    PAGE.write_text(page(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
