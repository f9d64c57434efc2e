"""Running test cases on a mesh: each request is explained, and compared with what is wanted."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from lab import names
from lab.explain import request as explain
from lab.explain.analyze import hosts
from lab.explain.cases import client
from lab.explain.cases.format import RULE_FIELDS, Case, Placed
from lab.explain.interpret import routing
from lab.explain.interpret.matchers import NoAnswerError, Request
from lab.explain.steps import Explanation, Step, Target
from lab.kinds.virtual_service import becomes as virtual_service
from lab.kinds.virtual_service import delegate
from lab.kinds.virtual_service.types import Delegate, HTTPRoute
from lab.model import Pod, Snapshot
from lab.resources.resource import Origin, Resource

Finder = Callable[[str], Pod]
"""Finds the pod of a client by the name of a pod, a workload or an app."""


@dataclass(frozen=True, slots=True)
class Failure:
    """A field of a case that does not hold."""

    what: str
    expected: str
    seen: str


@dataclass(frozen=True, slots=True)
class Asked:
    """One request of a case, and what is wrong with what becomes of it."""

    request: str
    client: str
    failures: tuple[Failure, ...]
    notes: tuple[str, ...]
    rule: Origin
    """The VirtualService's rule that it met, if any."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """The result of one case."""

    placed: Placed
    asked: tuple[Asked, ...]

    @property
    def passed(self) -> bool:
        return not any(one.failures for one in self.asked)


@dataclass(frozen=True, slots=True)
class Coverage:
    """The HTTP rules of VirtualServices, and which of them no request met."""

    total: int
    missed: tuple[tuple[str, str], ...]
    """The name and the place of each."""

    @property
    def percent(self) -> float:
        return 100 * (self.total - len(self.missed)) / self.total if self.total else 100.0


def run(
    snapshot: Snapshot, cases: Iterable[Placed], default: str, pod: Finder
) -> tuple[list[Outcome], Coverage]:
    """Returns the result of each case, and the coverage by all of them.

    `default` is the client of cases that name none; `pod` finds one by its name. Raises
    NoAnswerError for a request that makes no sense.
    """
    complete = client.with_delegates(snapshot)
    known = {host.name for host in hosts.registry(snapshot)}
    outcomes = []
    for placed in cases:
        name = placed.case.client or default
        asked = [_ask(complete, placed, name, pod, known, *ask) for ask in placed.asks()]
        outcomes.append(Outcome(placed, tuple(asked)))
    met = {_key(one.rule) for outcome in outcomes for one in outcome.asked}
    return outcomes, coverage(snapshot, met)


_Key = tuple[str, str, str | int]


def _key(rule: Origin) -> _Key | None:
    resource = rule.resource
    if resource is None or resource.kind != "VirtualService":
        return None
    return resource.namespace, resource.name, rule.path[2]


def coverage(snapshot: Snapshot, met: Iterable[_Key | None]) -> Coverage:
    """Returns the coverage of all HTTP rules; one that delegates is its delegate's."""
    known = set(met)
    total = 0
    missed = []
    for resource in snapshot.of("VirtualService"):
        for index, http in enumerate(resource.spec.http):
            if http.delegate is not None:
                continue
            total += 1
            if (resource.namespace, resource.name, index) not in known:
                name = f" “{http.name}”" if http.name else ""
                title = f"VirtualService {resource.namespace}/{resource.name}, http[{index}]{name}"
                missed.append((title, resource.source.at("spec", "http", index)))
    return Coverage(total, tuple(missed))


def _ask(
    snapshot: Snapshot,
    placed: Placed,
    name: str,
    finder: Finder,
    known: set[str],
    method: str,
    authority: str,
    uri: str,
) -> Asked:
    case, wanted = placed.case, placed.case.request
    scheme, port, notes = "http", None, list[str]()
    if name == client.ANY:
        snapshot, pod, scheme, port, notes = client.place(snapshot, authority)
    else:
        pod = finder(name)
    scheme = wanted.scheme or scheme
    number = wanted.port or port
    bare = authority.rpartition(":")[0] or authority
    url = f"{scheme}://{f'{bare}:{number}' if number else authority}{uri}"
    headers = [("host", authority), *wanted.headers.items()]
    if wanted.token is not None:
        headers.append(("authorization", f"Bearer {wanted.token}"))
    request = f"{method} {scheme}://{authority}{uri}"
    try:
        found = explain.explain(snapshot, pod, method, url, headers, wanted.claims)
    except NoAnswerError as error:
        raise NoAnswerError(f"{placed.place}: {error}") from None
    missing = [one for one in found.targets if _absent(one, known)]
    notes += [
        f"{_host(one)} is not in these files: no pods, policies or TLS of it are known"
        for one in missing
    ]
    rule = found.rule
    if rule.source is not None and rule.source.file == client.ABSENT:
        notes.append(f"the delegate {_named(rule.resource)} is not in these files")
    if "want_match" not in case.model_fields_set and any(getattr(case, n) for n in RULE_FIELDS):
        notes.append("no wantMatch: as in istio-config-validator it is false, no field may fit")
    failures = [*_rule_failures(case, rule), *_own_failures(case, _without(found, missing))]
    if failures and (resource := client.rule_for(snapshot, authority)) is not None:
        given = {name.lower(): (value,) for name, value in wanted.headers.items()}
        sent = Request(method, bare, uri, given, scheme)
        for problem in delegate.problems(resource, snapshot):
            if _fits(resource.spec.http[problem.path[2]], sent):
                notes.append(resource.describe(problem.path, problem.reason))
    return Asked(request, f"{pod.namespace}/{pod.name}", tuple(failures), tuple(notes), rule)


def _fits(rule: HTTPRoute, request: Request) -> bool:
    """Whether a request passes one of a rule's matches, whoever sends it."""
    matches = map(virtual_service.match_config, rule.match)
    return not rule.match or any(routing.matches(match, request) for match in matches)


def _named(resource: Resource | None) -> str:
    return f"{resource.namespace}/{resource.name}" if resource is not None else "nothing"


def _host(target: Target) -> str:
    return target.cluster.rpartition("|")[2]


def _absent(target: Target, known: set[str]) -> bool:
    """Whether a destination is a host that no Service and no ServiceEntry has."""
    return target.cluster.startswith("outbound|") and not any(
        names.matches(name, _host(target)) for name in known
    )


def _without(found: Explanation, missing: Sequence[Target]) -> Explanation:
    """An explanation whose outcome does not come from destinations that are not there."""
    if not missing:
        return found
    kept = [replace(one, steps=()) if one in missing else one for one in found.targets]
    return Explanation(found.steps, kept, found.mirrors).settle()


def _rule_failures(case: Case, rule: Origin) -> Iterator[Failure]:
    """Yields the fields of the rule that are not as `wantMatch` says."""
    resource = rule.resource
    http, namespace = HTTPRoute(), "default"
    if resource is not None and resource.kind == "VirtualService":
        http, namespace = resource.spec.http[rule.path[2]], resource.namespace
        if not resource.spec.hosts:
            known = {"name": resource.name, "namespace": resource.namespace}
            asked = case.delegate.namespace if case.delegate else None
            own = Delegate.model_validate(known if asked else {"name": resource.name})
            http = http.model_copy(update={"delegate": own})
    for name in RULE_FIELDS:
        wanted = getattr(case, name)
        if wanted is None:
            continue
        seen = getattr(http, name)
        if (_comparable(wanted, namespace) == _comparable(seen, namespace)) is not case.want_match:
            place = f"  {rule}" if rule.source is not None else ", no VirtualService's rule fits"
            expected = _shown(wanted) if case.want_match else f"anything but {_shown(wanted)}"
            yield Failure(name, expected, f"{_shown(seen)}{place}")


def _comparable(value: Any, namespace: str) -> object:
    """A value with its host names in full."""
    if not isinstance(value, list):
        return value
    return [
        one.model_copy(
            update={
                "destination": one.destination.model_copy(
                    update={"host": names.expand(one.destination.host, namespace)}
                )
            }
        )
        for one in value
    ]


def _shown(value: Any) -> str:
    """A field of a rule on one line, as YAML has it."""
    if isinstance(value, list):
        return f"[{', '.join(map(_shown, value))}]" if value else "none"
    if value is None:
        return "none"
    return json.dumps(value.model_dump(mode="json", by_alias=True, exclude_defaults=True))


def _own_failures(case: Case, found: Explanation) -> Iterator[Failure]:
    """Yields what is not as the lab's own fields of a case say."""
    shared = [one for one in found.targets if one.share]
    below = [step for one in shared for step in one.steps]
    every = [*found.steps, *below]

    def says(what: str) -> list[str]:
        return [step.says for step in every if step.what == what]

    if case.outcome not in (None, found.outcome):
        yield Failure("outcome", str(case.outcome), _ending(found))
    if case.status not in (None, found.status):
        yield Failure("status", str(case.status), _ending(found))
    if case.subset is not None:
        wanted = {case.subset} if isinstance(case.subset, str) else set(case.subset)
        subsets = {one.cluster.split("|")[2] for one in shared if one.cluster.count("|") == 3}
        if subsets != wanted:
            yield Failure("subset", _listed(wanted), _listed(subsets))
    if case.pods is not None:
        pods = {name for one in shared for name in one.pods}
        stray = {pod for pod in pods if not any(_is(pod, name) for name in case.pods)}
        absent = {name for name in case.pods if not any(_is(pod, name) for pod in pods)}
        if stray or absent:
            yield Failure("pods", _listed(case.pods), _listed(pods))
    if case.policy is not None:
        decisions = says("authorization")
        if case.policy == "allowed":
            holds = bool(decisions) and not any(one.startswith("denied") for one in decisions)
        else:
            holds = any(case.policy in one for one in decisions)
        if not holds:
            yield Failure("policy", case.policy, "; ".join(decisions) or "no proxy decides")
    if case.token is not None:
        seen = _tokens(every)
        if seen != {case.token}:
            yield Failure("token", case.token, _listed(seen))
    if case.mutual_tls is not None:
        transports = says("transport")
        if {one.startswith("mutual TLS") for one in transports} != {case.mutual_tls}:
            seen_text = "; ".join(transports) or "no pod is asked"
            yield Failure("mTLS", json.dumps(case.mutual_tls), seen_text)
    for what, text in case.steps.items():
        if not any(text in one for one in says(what)):
            yield Failure(what, text, "; ".join(says(what)) or "no such step")


def _is(pod: str, name: str) -> bool:
    """Whether a pod has a name, its own or its workload's."""
    return name in (pod, pod.rpartition("-")[0], pod.rsplit("-", 2)[0])


def _listed(values: Iterable[str]) -> str:
    return ", ".join(sorted(values)) or "none"


def _ending(found: Explanation) -> str:
    status = f" {found.status}" if found.status is not None else ""
    every = [*found.steps, *(step for one in found.targets for step in one.steps)]
    reason = next((f": {step.says}" for step in every if step.what == "answer"), "")
    return f"{found.outcome}{status}{reason}"


def _tokens(steps: Iterable[Step]) -> set[str]:
    seen = set()
    for step in steps:
        if step.what == "authentication":
            seen.add("missing" if step.says.startswith("no token") else "accepted")
        elif step.what == "answer" and step.says.startswith("401"):
            seen.add("refused")
    return seen
