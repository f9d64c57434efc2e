"""Comparison of the lab's configuration with istiod's: `python -m tests.istiod.compare`.

    python -m tests.istiod.compare                     all differences, by kind
    python -m tests.istiod.compare SCENARIO...         each difference of some scenarios
    python -m tests.istiod.compare SCENARIO -p PROXY   of one proxy
    python -m tests.istiod.compare -k TEXT             all with this text in their kind

A kind is the type of resource and the path without the names in it.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import textwrap
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from lab.envoy import translate
from lab.manifests.read import ManifestError
from lab.model import ProxyConfig
from tests.istiod import left_out, record
from tests.istiod.difference import Difference, Path, differences
from tests.istiod.normal import normal
from tests.istiod.scenarios import Scenario, all_scenarios
from tests.istiod.world import asked

WIDTH = 200


@dataclass(frozen=True, slots=True)
class Found:
    """A difference with the place where it was found; a path begins with type and name."""

    scenario: str
    proxy: str
    difference: Difference

    def text(self, width: int = WIDTH) -> str:
        """Returns the place and both values; long ones are cut."""
        one = self.difference
        return (
            f"{self.scenario} {self.proxy}\n  {shown_path(one.path)}\n"
            f"    istiod: {shown(one.istiod, width)}\n    lab:    {shown(one.lab, width)}"
        )


def compare(scenario: Scenario, used: set[str] | None = None) -> Iterator[Found]:
    """Yields the differences of a scenario. Raises ManifestError where the lab refuses it."""
    _, expected = record.recorded(scenario.name)
    snapshot = scenario.snapshot()
    pods = {f"{pod.name}.{pod.namespace}": pod for pod in asked(snapshot)}
    if pods.keys() != expected.keys():
        raise ValueError(f"{scenario.name}: the proxies are {sorted(pods)}: record again")
    noted: set[str] = set() if used is None else used
    for name, pod in pods.items():
        config = translate.proxy_config(snapshot, pod)
        for difference in differences_of(expected[name], config, noted):
            yield Found(scenario.name, name, difference)


def differences_of(
    expected: record.Proxy, config: ProxyConfig, used: set[str]
) -> Iterator[Difference]:
    """Yields the differences of a proxy's configuration from that of istiod."""
    lists = {
        "listeners": config.listeners,
        "routes": config.routes,
        "clusters": config.clusters,
        "endpoints": config.endpoints,
    }
    theirs = left_out.without(normal(record.lists(expected)), used)
    yield from differences(theirs, left_out.without(normal(lists), used))


def kind(difference: Difference) -> str:
    """Returns a path without the names of resources, virtual hosts, routes and numbers."""
    steps = [difference.path[0], *("*" for _ in difference.path[1:2])]
    for step in difference.path[2:]:
        named = re.fullmatch(r"\[((?:envoy|istio)\..*)\]", step)
        steps.append(step if named or not step.startswith("[") else "[]")
    sign = "other"
    if difference.lab is None:
        sign = "missing"
    elif difference.istiod is None:
        sign = "extra"
    return f"{sign:7} {shown_path(tuple(steps))}"


def shown_path(path: Path) -> str:
    return " ".join(path[:2]) + "".join(s if s.startswith("[") else f" .{s}" for s in path[2:])


def shown(value: Any, width: int = WIDTH) -> str:
    if value is None:
        return "nothing"
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= width else f"{text[:width]}…"


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(usage=__doc__)
    parser.add_argument("scenario", nargs="*")
    parser.add_argument("-p", "--proxy", default="")
    parser.add_argument("-k", "--kind", default="")
    parser.add_argument("-w", "--width", type=int, default=WIDTH)
    options = parser.parse_args(arguments)
    scenarios = all_scenarios()
    chosen = options.scenario or list(scenarios)
    found: list[Found] = []
    failed: list[str] = []
    for name in chosen:
        try:
            found += compare(scenarios[name])
        except ManifestError as error:
            failed.append(f"{name}: refused: {error.lines[0]}")
        except Exception as error:
            failed.append(f"{name}: {type(error).__name__}: {error}")
    found = [
        one for one in found if options.proxy in one.proxy and options.kind in kind(one.difference)
    ]
    if options.scenario or options.kind:
        for one in found:
            print(one.text(options.width))
    else:
        summarise(found, options.width)
    for line in failed:
        print(line)
    print(f"{len(found)} differences, {len(failed)} scenarios not compared, of {len(chosen)}")
    return 1 if found or failed else 0


def summarise(found: Sequence[Found], width: int) -> None:
    """Prints the kinds of differences with their number, and an example of each."""
    counted = Counter(kind(one.difference) for one in found)
    for text, count in counted.most_common():
        print(f"{count:6} {text}")
    print()
    seen: dict[str, Found] = {}
    for one in found:
        seen.setdefault(kind(one.difference), one)
    for text, _ in counted.most_common():
        print(f"{text}\n{textwrap.indent(seen[text].text(width), '  ')}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
