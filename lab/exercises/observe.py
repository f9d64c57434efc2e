"""Expectations beside the answers: pods, logs, Envoy's statistics and endpoints, traces.

Everything is read with commands a person can type; a proxy's numbers come from its admin API
through `pilot-agent request`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx

from lab.exercises.check import Difference, contains, equals
from lab.exercises.format import Endpoint, Expect, Logs, Metric, Pods, Stats, Traces
from lab.exercises.target import Target

_SAMPLE = re.compile(r"^([a-zA-Z_:][\w:]*)(?:\{(.*)\})? (\S+)$")
_LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')


@dataclass(frozen=True, slots=True)
class Before:
    """Lines and numbers from before a step, to subtract, by what asks for them."""

    lines: dict[str, dict[tuple[str, str], int]]
    """The number of log lines by pod."""
    numbers: dict[str, float]


def select(selector: str) -> tuple[str, list[str]]:
    """Returns the namespace, and `get`'s arguments, of `[namespace/]labels` or `[…]pod/NAME`."""
    parts = selector.split("/")
    if "pod" in parts[:-1]:
        return (parts[0] if len(parts) == 3 else "default"), ["pod", parts[-1]]
    if len(parts) == 2 and "=" not in parts[0]:
        return parts[0], ["pods", "-l", parts[1]]
    return "default", ["pods", "-l", selector]


def pods(target: Target, selector: str) -> list[dict[str, Any]]:
    """Returns the pods of a selector that are not being deleted, by name."""
    namespace, arguments = select(selector)
    found = target.get_json(*arguments, "-n", namespace)
    items = [] if found is None else found.get("items", [found])
    alive = [pod for pod in items if not pod["metadata"].get("deletionTimestamp")]
    return sorted(alive, key=lambda pod: str(pod["metadata"]["name"]))


def is_ready(pod: dict[str, Any]) -> bool:
    conditions = pod.get("status", {}).get("conditions", [])
    return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)


def before(target: Target, expect: Expect) -> Before:
    """Returns the lines and numbers that a step must not count."""
    numbers: list[Stats | Metric] = [s for s in expect.stats if not s.since_start]
    numbers += expect.metrics
    return Before(
        {repr(log): {pod: len(lines) for pod, lines in _logs(target, log)} for log in expect.logs},
        {repr(look): _number(target, look) for look in numbers},
    )


def differences(target: Target, expect: Expect, seen: Before) -> tuple[list[str], list[Difference]]:
    """Returns what is as expected, in words, and what isn't."""
    good: list[str] = []
    bad: list[Difference] = []
    for text, wrong in _all(target, expect, seen):
        if wrong is None:
            good.append(text)
        else:
            bad.append(Difference(text, wrong))
    return good, bad


def _all(target: Target, expect: Expect, seen: Before) -> Iterator[tuple[str, str | None]]:
    """Yields each expectation in words, and what was seen when it doesn't hold."""
    for logs in expect.logs:
        lines = _count_lines(target, logs, seen)
        where = f"{logs.of}{f' ({logs.container})' if logs.container else ''}"
        text = f"log of {where}: {logs.words} lines with {logs.line!r}"
        yield _amount(text, logs.allows(lines), lines)
    for stats in expect.stats:
        number = _number(target, stats) - seen.numbers.get(repr(stats), 0.0)
        text = f"statistic {stats.name} of {stats.of}: {stats.words}"
        yield _amount(text, stats.allows(number), number)
    for metric in expect.metrics:
        number = _number(target, metric) - seen.numbers.get(repr(metric), 0.0)
        text = f"metric {metric.name} {metric.labels or ''} of {metric.of}: {metric.words}"
        yield _amount(text, metric.allows(number), number)
    for endpoint in expect.endpoints:
        yield _endpoint(target, endpoint)
    for group in expect.pods:
        yield _pods(target, group)
    for traces in expect.traces:
        yield _traces(target, traces)


def _amount(text: str, fits: bool, number: float) -> tuple[str, str | None]:
    return (f"{text}; seen {number:g}", None) if fits else (text, f"{number:g}")


def _names(target: Target, selector: str) -> list[tuple[str, str]]:
    return [(p["metadata"]["namespace"], p["metadata"]["name"]) for p in pods(target, selector)]


def _log(target: Target, namespace: str, pod: str, container: str | None) -> list[str]:
    argv = ["kubectl", "logs", pod, "-n", namespace, *(["-c", container] if container else [])]
    return target.run(argv).output.splitlines()


def _logs(target: Target, logs: Logs) -> Iterator[tuple[tuple[str, str], list[str]]]:
    """Yields each pod with the lines of its log."""
    for namespace, name in _names(target, logs.of):
        yield (namespace, name), _log(target, namespace, name, logs.container)


def _count_lines(target: Target, logs: Logs, seen: Before) -> int:
    number = 0
    for pod, lines in _logs(target, logs):
        old = seen.lines[repr(logs)].get(pod, 0)
        new = lines[old:] if len(lines) >= old else lines  # fewer lines: the log was rotated
        number += sum(contains(logs.line, line) for line in new)
    return number


def proxy_lines(target: Target, selector: str) -> list[str]:
    """Returns the last eight lines of the proxy of each pod, for a failure report."""
    return [
        f"{name} istio-proxy: {line}"
        for namespace, name in _names(target, selector)
        for line in _log(target, namespace, name, "istio-proxy")[-8:]
    ]


def proxy(target: Target, namespace: str, pod: str, path: str) -> str:
    """Returns the answer of a proxy's admin API."""
    argv = ["kubectl", "exec", pod, "-n", namespace, "-c", "istio-proxy", "--"]
    return target.run([*argv, "pilot-agent", "request", "GET", path]).output


def _number(target: Target, look: Stats | Metric) -> float:
    """Returns the sum of a statistic or a metric over the pods and the names that match."""
    page = "stats" if isinstance(look, Stats) else "stats/prometheus"
    return sum(
        _stat(look, line) if isinstance(look, Stats) else _sample(look, line)
        for namespace, name in _names(target, look.of)
        for line in proxy(target, namespace, name, page).splitlines()
    )


def _stat(stats: Stats, line: str) -> float:
    name, _, value = line.rpartition(": ")
    return float(value) if re.search(stats.name, name) and value.isdigit() else 0.0


def _sample(metric: Metric, line: str) -> float:
    found = _SAMPLE.match(line)
    if not found or found[1] != metric.name:
        return 0.0
    labels = dict(_LABEL.findall(found[2] or ""))
    wanted = metric.labels.items()
    return float(found[3]) if all(equals(v, labels.get(key)) for key, v in wanted) else 0.0


def _endpoint(target: Target, endpoint: Endpoint) -> tuple[str, str | None]:
    state = "ejected" if endpoint.ejected else "not ejected"
    text = f"every proxy of {endpoint.of} has {endpoint.pod} {state}"
    addresses = {p["status"].get("podIP") for p in pods(target, f"pod/{endpoint.pod}")}
    prefix = re.compile(rf"{re.escape(endpoint.cluster)}::(.+):\d+::health_flags::(.*)")
    wrong = []
    for namespace, name in _names(target, endpoint.of):
        flags = {
            found[1]: found[2]
            for line in proxy(target, namespace, name, "clusters").splitlines()
            if (found := prefix.match(line)) and found[1] in addresses
        }
        if not flags:
            wrong.append(f"{name} doesn't know it")
        wrong += [
            f"{name}: {flag}"
            for flag in flags.values()
            if ("failed_outlier_check" in flag) != endpoint.ejected
        ]
    return (text, "; ".join(wrong)) if wrong else (text, None)


def ready_column(pod: dict[str, Any]) -> str:
    """Returns READY as in `kubectl get pods`: of init containers only native sidecars count."""
    spec, status = pod["spec"], pod.get("status", {})
    sidecars = {
        c["name"] for c in spec.get("initContainers", []) if c.get("restartPolicy") == "Always"
    }
    states = list(status.get("containerStatuses", []))
    states += [s for s in status.get("initContainerStatuses", []) if s["name"] in sidecars]
    ready = sum(bool(state.get("ready")) for state in states)
    return f"{ready}/{len(spec['containers']) + len(sidecars)}"


def _pods(target: Target, group: Pods) -> tuple[str, str | None]:
    wanted = {
        "number": group.number,
        "READY": group.ready,
        "with": ", ".join(group.containers or ()),
        "without": ", ".join(group.no_containers or ()),
    }
    shown = ", ".join(f"{k} {v}" for k, v in wanted.items() if v not in (None, ""))
    text = f"pods {group.of}: {shown}"
    found = pods(target, group.of)
    wrong = [] if found else ["there are none"]
    if group.number is not None and len(found) != group.number:
        wrong.append(f"there are {len(found)}")
    for pod in found:
        name = pod["metadata"]["name"]
        containers = {
            c["name"] for c in [*pod["spec"]["containers"], *pod["spec"].get("initContainers", [])]
        }
        column = ready_column(pod)
        if group.ready and (column != group.ready or is_ready(pod) != _full(column)):
            wrong.append(f"{name} {column}")
        if missing := set(group.containers or ()) - containers:
            wrong.append(f"{name} has no {', '.join(sorted(missing))}")
        if extra := set(group.no_containers or ()) & containers:
            wrong.append(f"{name} has {', '.join(sorted(extra))}")
    return (text, "; ".join(wrong)) if wrong else (text, None)


def _full(column: str) -> bool:
    ready, _, all_of_them = column.partition("/")
    return ready == all_of_them


def _traces(target: Target, traces: Traces) -> tuple[str, str | None]:
    text = (
        f"a trace of {traces.url} with at least {traces.at_least} spans, "
        f"of {', '.join(traces.services)}"
    )
    with target.forward("istio-system", "svc/zipkin", 9411) as port:
        answer = httpx.get(
            f"http://127.0.0.1:{port}/api/v2/traces",
            params={"serviceName": traces.services[0], "limit": 200},
            trust_env=False,
            timeout=10,
        )
    best = ""
    for trace in answer.json() if answer.is_success else []:
        if not any(traces.url in span.get("tags", {}).get("http.url", "") for span in trace):
            continue
        services = {span.get("localEndpoint", {}).get("serviceName") for span in trace}
        missing = set(traces.services) - services
        if not missing and len(trace) >= traces.at_least:
            return f"{text}; seen {len(trace)} spans", None
        best = f"one with {len(trace)} spans, of {', '.join(sorted(map(str, services)))}"
    return text, best or f"none of that URL (Zipkin: {answer.status_code})"
