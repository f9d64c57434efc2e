"""The types of Istio's kinds and docs/supported-fields.md are as they are written today."""

from __future__ import annotations

import subprocess
import sys

from scripts import supported_fields
from tests.support.repository import ROOT


def test_the_types_are_those_of_the_schema() -> None:
    command = [sys.executable, "-m", "scripts.istio_schema", "--check"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_the_page_lists_what_the_models_say() -> None:
    text = supported_fields.PAGE.read_text(encoding="utf-8")
    assert text == supported_fields.page(), "run: python -m scripts.supported_fields"
