"""Values given with `--set`, as istioctl reads them."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Sequence
from typing import Any

from lab.cli.client import FailureError

_TEXTS = ("tag", "compatibilityVersion", "meshConfig.defaultConfig.proxyMetadata.")
"""The beginnings of paths whose values are texts, whatever they look like."""

_BOOLEANS = {
    **dict.fromkeys(("t", "T", "true", "True", "TRUE"), True),
    **dict.fromkeys(("f", "F", "false", "False", "FALSE"), False),
}


def operator(words: Iterable[str], files: Sequence[tuple[str, str]] = ()) -> dict[str, Any]:
    """Returns an IstioOperator with values such as `meshConfig.accessLogFile=/dev/stdout`.

    Its name is another for other values or files, so that it comes after the files installed
    with it.
    """
    spec: dict[str, Any] = {}
    for word in words:
        path, equals, value = word.partition("=")
        if not (path and equals):
            raise FailureError(f"--set {word}: write PATH=VALUE")
        _set(spec, _steps(path), value if path.startswith(_TEXTS) else _value(value), word)
    digest = hashlib.sha256(json.dumps([spec, files]).encode()).hexdigest()[:8]
    return {
        "apiVersion": "install.istio.io/v1alpha1",
        "kind": "IstioOperator",
        "metadata": {"name": f"set-{digest}", "namespace": "istio-system"},
        "spec": spec,
    }


def _steps(path: str) -> list[str | int]:
    """Returns `a.b[0].c` as its steps; a dot after a backslash belongs to a name."""
    steps: list[str | int] = []
    for part in re.split(r"(?<!\\)\.", path):
        name, bracket, index = part.replace("\\.", ".").partition("[")
        steps += [name] if name else []
        if bracket and not re.fullmatch(r"\d+\]", index):
            raise FailureError(f"--set {path}: [{index} is no index; put the list into a file: -f")
        steps += [int(index[:-1])] if bracket else []
    if not steps:
        raise FailureError(f"--set {path}: the path names no field")
    return steps


def _value(text: str) -> Any:
    if re.fullmatch(r"[+-]?\d+", text):
        return int(text)
    if re.fullmatch(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", text):
        return float(text)
    return _BOOLEANS.get(text, text.replace("\\,", ","))


def _set(base: Any, steps: Sequence[Any], value: Any, word: str) -> None:
    """Puts a value at a path; an index beyond the end of a list adds to it."""
    step, rest = steps[0], steps[1:]
    fits = isinstance(base, list if isinstance(step, int) else dict)
    if not fits:
        raise FailureError(f"--set {word}: another value of --set is in its way")
    if isinstance(step, int):
        step = min(step, len(base))
        if step == len(base):
            base.append(None)
    if rest:
        inside = base[step] if isinstance(step, int) else base.get(step)
        base[step] = inside if inside is not None else [] if isinstance(rest[0], int) else {}
        _set(base[step], rest, value, word)
    else:
        base[step] = value
