"""docs/configuration.md cannot go stale."""

from __future__ import annotations

import pytest

from scripts import configuration


def test_the_page_is_what_the_settings_say() -> None:
    assert configuration.PAGE.read_text(encoding="utf-8") == configuration.page(), (
        "run: python -m scripts.configuration"
    )


@pytest.mark.parametrize("service", configuration.SERVICES)
def test_every_setting_is_described(service: str) -> None:
    settings = configuration.settings_class(service)
    described = {name for name, text in configuration.descriptions(settings).items() if text}
    assert set(settings.model_fields) - described == set()
