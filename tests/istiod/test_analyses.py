"""The lab finds what istioctl's analyzers find, in the same words.

`make istiod` records their findings in `analyses.json`.
"""

from __future__ import annotations

import re

import pytest

from lab.cluster import snapshots
from lab.explain.analyze.analyze import analyze
from lab.explain.analyze.finding import LAB
from tests.istiod.analyses import FAULTS, Finding, recorded, resources

RECORDED = recorded()
HINT = re.compile(r" \((there is|no pod of|the pods of) [^()]*\)$")
OTHERS = {
    ("IST0127", "PeerAuthentication default/nobodys"): "The lab looks at all policies.",
    ("IST0173", "DestinationRule default/subsets"): "Of the host's pods alone; istioctl's of all.",
    ("IST0134", "ServiceEntry default/given"): "istiod writes its address into the status.",
}
"""Findings that only one of the two has or has in other words, each with the reason."""


def ours(name: str) -> set[Finding]:
    """The lab's findings, without its own and without its hints."""
    return {
        (one.code, one.origin, HINT.sub("", one.text))
        for one in analyze(snapshots.snapshot(resources(name)))
        if one.code != LAB
    }


def test_every_file_is_recorded() -> None:
    assert set(RECORDED) == {file.stem for file in FAULTS.glob("*.yaml")}


@pytest.mark.parametrize("name", RECORDED)
def test_the_findings_are_istioctls(name: str) -> None:
    others = ours(name) ^ set(RECORDED[name])
    assert [one for one in sorted(others) if one[:2] not in OTHERS] == []


def test_each_difference_is_there() -> None:
    others = {one[:2] for name, found in RECORDED.items() for one in ours(name) ^ set(found)}
    assert others == set(OTHERS)
