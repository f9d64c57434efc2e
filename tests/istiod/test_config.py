"""The lab's configuration of each proxy is istiod's, field by field."""

from __future__ import annotations

import pytest

from tests.istiod import record
from tests.istiod.compare import Found, compare
from tests.istiod.scenarios import Scenario, all_scenarios

SCENARIOS = all_scenarios()
SHOWN = 20


@pytest.mark.parametrize("scenario", SCENARIOS.values(), ids=SCENARIOS)
def test_the_lab_configures_each_proxy_as_istiod_does(scenario: Scenario) -> None:
    inputs, _ = record.recorded(scenario.name)
    assert inputs == record.digest(scenario.world()), "the scenario is another: `make istiod`"
    found = list(compare(scenario))
    assert not found, report(found)


def report(found: list[Found]) -> str:
    """Returns the first differences, for whoever mends them."""
    texts = [one.text() for one in found[:SHOWN]]
    more = f"and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
    command = f"python -m tests.istiod.compare {found[0].scenario}"
    return "\n".join(["", *texts, more, f"All of them: {command}"])
