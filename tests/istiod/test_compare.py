"""The comparison with istiod: its normal form, its list of what is left out, its scenarios."""

from __future__ import annotations

import copy
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from lab.model import ProxyConfig
from tests.istiod import left_out, record
from tests.istiod.compare import differences_of
from tests.istiod.difference import change, changed
from tests.istiod.normal import normal
from tests.istiod.scenarios import all_scenarios
from tests.support.repository import ISTIO

SCENARIOS = all_scenarios()


def test_every_entry_of_the_list_leaves_something_out() -> None:
    used: set[str] = set()
    for name in SCENARIOS:
        for proxy in record.recorded(name)[1].values():
            left_out.without(normal(record.lists(proxy)), used)
    assert {entry.where for entry in left_out.LEFT_OUT} - used == set()


def test_every_manifest_of_an_exercise_is_in_a_scenario() -> None:
    applied = {
        file
        for scenario in SCENARIOS.values()
        for path in scenario.paths
        for file in (path.glob("*.yaml") if path.is_dir() else [path])
    }
    lessons = [file for file in ISTIO.glob("[0-9]*/*.yaml") if file.name != "exercise.yaml"]
    assert [file for file in lessons if file not in applied] == []


ROUTE: dict[str, Any] = {
    "name": "80",
    "virtual_hosts": [
        {
            "name": "a:80",
            "domains": ["a", "b"],
            "routes": [
                {
                    "name": "first",
                    "match": {"prefix": "/"},
                    "route": {"cluster": "c", "timeout": "0.500s", "retry_policy": {}},
                },
                {"name": "second", "match": {"path": "/x"}, "direct_response": {"status": 404}},
            ],
        }
    ],
}


def compared(istiod: dict[str, Any], lab: dict[str, Any]) -> list[tuple[Any, ...]]:
    config = ProxyConfig(listeners=[], clusters=[], routes=[lab], endpoints=[])
    found = differences_of({"routes 80": istiod}, config, set())
    return [(one.path[-1], one.istiod, one.lab) for one in found]


def test_spelling_is_no_difference() -> None:
    other = copy.deepcopy(ROUTE)
    host = other["virtual_hosts"][0]
    other["virtualHosts"] = other.pop("virtual_hosts")
    host["domains"] = ["b", "a"]
    host["require_tls"] = "NONE"
    host["routes"][0]["route"]["timeout"] = "0.5s"
    host["routes"][1]["request_headers_to_add"] = []
    assert compared(ROUTE, other) == []


def test_a_value_is_a_difference() -> None:
    other = copy.deepcopy(ROUTE)
    other["virtual_hosts"][0]["routes"][0]["route"]["timeout"] = "5s"
    del other["virtual_hosts"][0]["routes"][0]["route"]["retry_policy"]
    assert compared(ROUTE, other) == [("retry_policy", {}, None), ("timeout", "0.500s", "5s")]


def test_the_order_of_routes_is_a_difference() -> None:
    other = copy.deepcopy(ROUTE)
    other["virtual_hosts"][0]["routes"].reverse()
    moved, again = compared(ROUTE, other)
    assert moved[0] == again[0]
    assert {moved[1:].index(None), again[1:].index(None)} == {0, 1}


def test_an_unknown_field_is_a_difference() -> None:
    assert compared(ROUTE, {**ROUTE, "no_such_field": 1}) == [("no_such_field", None, 1)]


JSON = st.recursive(
    st.booleans() | st.integers() | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["name", "a", "b"]), inner)
    ),
    max_leaves=12,
)


@given(JSON, JSON)
def test_a_change_leads_from_one_value_to_the_other(before: Any, after: Any) -> None:
    assert before == after or changed(before, change(before, after)) == after
