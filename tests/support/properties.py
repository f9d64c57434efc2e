"""Settings for property tests whose every example starts an Envoy."""

from __future__ import annotations

from hypothesis import HealthCheck, Phase, settings


def examples(number: int) -> settings:
    """So many examples, in whatever time they take; a failing one is not shrunk."""
    return settings(
        max_examples=number,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.explicit, Phase.reuse, Phase.generate],
    )
