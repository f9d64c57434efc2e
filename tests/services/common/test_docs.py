"""docs/configuration.md cannot go stale."""

from __future__ import annotations

import pytest

from scripts import configuration
from services.common.settings import CommonSettings


def test_the_page_is_what_the_settings_say() -> None:
    assert configuration.PAGE.read_text(encoding="utf-8") == configuration.page(), (
        "run: python -m scripts.configuration"
    )


@pytest.mark.parametrize("service", configuration.SERVICES)
def test_every_setting_is_described_and_in_the_page(service: str) -> None:
    page = configuration.PAGE.read_text(encoding="utf-8")
    settings = configuration.settings_class(service)
    for name in settings.model_fields:
        assert configuration.descriptions(settings).get(name), f"{service}: {name} has none"
        assert f"| `{name.upper()}` |" in page


def test_only_what_differs_is_repeated() -> None:
    page = configuration.page()
    assert page.count("| `SHUTDOWN_GRACE` |") == 1
    assert page.count("| `OTEL_SERVICE_NAME` |") == len(configuration.SERVICES)
    assert set(CommonSettings.model_fields) >= {"port", "management_port", "host"}
