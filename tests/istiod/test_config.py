"""The lab's configuration of each proxy is istiod's, field by field."""

from __future__ import annotations

import pytest

from lab.manifests.read import ManifestError
from tests.istiod import record
from tests.istiod.compare import Found, compare
from tests.istiod.scenarios import Scenario, all_scenarios

SCENARIOS = all_scenarios()
REFUSED = {
    "authorization-custom": "Nothing in the lab would answer for the provider.",
    "mc-trust": "The lab has one trust domain.",
    "mesh-http-port": "The lab has a port of its own for an HTTP proxy.",
}
"""Scenarios of which the lab says that it does not support a part; the list shrinks."""
SHOWN = 20


COMPARED = {name: one for name, one in SCENARIOS.items() if name not in REFUSED}


@pytest.mark.parametrize("name", REFUSED)
def test_a_scenario_is_refused_in_the_labs_own_voice(name: str) -> None:
    with pytest.raises(ManifestError, match="not supported by the lab"):
        SCENARIOS[name].snapshot()


@pytest.mark.parametrize("scenario", COMPARED.values(), ids=COMPARED)
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
