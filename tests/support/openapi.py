"""schemathesis against a running service: what it answers is what its OpenAPI says."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tests.support.service import environment


@dataclass(frozen=True)
class Deviation:
    """A check of schemathesis that does not hold as it is, and why."""

    check: str
    """Its name, as `schemathesis run --help` lists it."""
    reason: str
    paths: tuple[str, ...] = ()
    """Path templates of the schema it is about; none: all."""
    methods: tuple[str, ...] = ()
    """Methods in small letters; none: all."""
    statuses: tuple[str, ...] = ()
    """Statuses the check accepts instead of its own ("422", "4xx"); none: the check is off."""


def check_openapi(
    url: str,
    schema: str | Mapping[str, Any] = "/openapi.json",
    *,
    deviations: Sequence[Deviation] = (),
    headers: Mapping[str, str] | None = None,
    examples: int = 30,
    seconds: float = 120,
) -> None:
    """Fails with schemathesis' report unless every check holds for every operation.

    `schema` is a path of the service or the document itself; `headers` go with every request.
    `examples` are tried per operation beside those that cover each bound of the schema.
    In CI the examples are the same in every run.
    """
    with TemporaryDirectory() as name:
        folder = Path(name)
        if isinstance(schema, str):
            location = url + schema
        else:
            (folder / "openapi.json").write_text(json.dumps(schema), encoding="utf-8")
            location = "openapi.json"
        (folder / "schemathesis.toml").write_text(_configuration(deviations), encoding="utf-8")
        command = [
            *(sys.executable, "-m", "schemathesis.cli", "--no-color"),
            *("run", location, "--url", url),
            *("--max-examples", str(examples)),
            *("--report", "json", "--report-json-path", "report.json"),
            *(part for item in (headers or {}).items() for part in ("-H", "{}: {}".format(*item))),
        ]
        if os.environ.get("CI") == "true":
            command += ["--generation-deterministic"]
        else:
            command += ["--generation-database", "none"]
        done = subprocess.run(
            command,
            cwd=folder,
            env=environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            encoding="utf-8",
            timeout=seconds,
            check=False,
        )
        assert done.returncode == 0, done.stdout
        report = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    operations = report["operations"]
    assert report["complete"], done.stdout
    assert operations["tested"] == operations["total"] > 0, done.stdout


def _configuration(deviations: Sequence[Deviation]) -> str:
    """The deviations as a configuration file; a warning of schemathesis fails the run, too."""
    lines = ["warnings.fail-on = true"]
    for deviation in deviations:
        lines += [f"# {deviation.reason}", "[[operations]]"]
        if deviation.paths and deviation.methods:
            # Of a path and a method that are given apart either would do.
            names = [f"{m.upper()} {path}" for m in deviation.methods for path in deviation.paths]
            lines.append(f"include-name = {json.dumps(names)}")
        elif deviation.paths:
            lines.append(f"include-path = {json.dumps(deviation.paths)}")
        elif deviation.methods:
            lines.append(f"include-method = {json.dumps(deviation.methods)}")
        else:
            lines.append('include-path-regex = "."')
        lines.append(f"[operations.checks.{deviation.check}]")
        if deviation.statuses:
            lines.append(f"expected-statuses = {json.dumps(deviation.statuses)}")
        else:
            lines.append("enabled = false")
    return "\n".join(lines)
