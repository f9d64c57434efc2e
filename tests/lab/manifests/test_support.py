"""docs/lab.md cannot go stale."""

from __future__ import annotations

from lab.manifests import supported_fields


def test_the_page_lists_what_the_models_say() -> None:
    text = supported_fields.PAGE.read_text(encoding="utf-8")
    assert text == supported_fields.page(text), "run: python -m lab.manifests.supported_fields"
