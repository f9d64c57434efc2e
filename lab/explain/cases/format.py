"""The format of test files: that of istio-config-validator, and what `guestbook route` knows."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import product
from typing import Any, Literal

from pydantic import Field

from lab.explain.steps import Outcome
from lab.kinds.virtual_service.types import (
    Delegate,
    Headers,
    HTTPFaultInjection,
    HTTPRedirect,
    HTTPRewrite,
    HTTPRouteDestination,
)
from lab.manifests import load
from lab.manifests.read import ManifestError
from lab.resources.document import Document, DocumentError, documents
from lab.resources.resource import Model, Source, dotted

RULE_FIELDS = ("route", "redirect", "rewrite", "fault", "headers", "delegate")
"""The fields of a case that `wantMatch` is about: those of the VirtualService's rule."""


class Requests(Model):
    """Requests: each path with each host and each method."""

    authority: list[str]
    method: list[str]
    uri: list[str]
    headers: dict[str, str] = Field(default_factory=dict)
    port: int | None = None
    scheme: Literal["http", "https"] | None = None
    token: str | None = None
    claims: dict[str, Any] | None = None
    """The claims of a valid token, in place of one."""


class Case(Model):
    """One test case. The fields from `from` on are not of istio-config-validator."""

    description: str = ""
    want_match: bool = False
    request: Requests
    route: list[HTTPRouteDestination] | None = None
    redirect: HTTPRedirect | None = None
    rewrite: HTTPRewrite | None = None
    fault: HTTPFaultInjection | None = None
    headers: Headers | None = None
    delegate: Delegate | None = None
    client: str | None = Field(default=None, alias="from")
    outcome: Outcome | None = None
    status: int | None = None
    subset: str | list[str] | None = None
    pods: list[str] | None = None
    policy: str | None = None
    token: Literal["accepted", "missing", "refused"] | None = None
    mutual_tls: bool | None = Field(default=None, alias="mTLS")
    steps: dict[str, str] = Field(default_factory=dict)


class _File(Model):
    test_cases: list[Case]


@dataclass(frozen=True, slots=True)
class Placed:
    """A case and its place; without `wantMatch` it is read as false, which deserves a note."""

    case: Case
    source: Source
    path: tuple[str | int, ...]

    @property
    def place(self) -> str:
        return self.source.at(*self.path)

    def asks(self) -> Iterator[tuple[str, str, str]]:
        """Yields each request: method, host and path."""
        request = self.case.request
        for uri, authority, method in product(request.uri, request.authority, request.method):
            yield method, authority, uri


def read(files: Iterable[tuple[str, str]]) -> list[Placed]:
    """Returns the cases in `(name, text)` pairs; documents of manifests are passed over.

    Raises ManifestError, with file and line.
    """
    found: list[Placed] = []
    errors: list[str] = []
    for file, text in files:
        try:
            for document in documents(text):
                if isinstance(document.value, dict) and "kind" in document.value:
                    continue
                source = Source(file, document.line, document.lines)
                cases, problems = _cases(document)
                errors += [
                    f"{source.at(*path)}: {dotted(path) or 'test file'}: {reason}"
                    for path, reason in problems
                ]
                found += [
                    Placed(case, source, ("testCases", index)) for index, case in enumerate(cases)
                ]
        except DocumentError as error:
            errors.append(f"{file}:{error.line}: {error.reason}")
    if errors:
        raise ManifestError(errors)
    return found


_Problem = tuple[tuple[str | int, ...], str]


def _cases(document: Document) -> tuple[list[Case], list[_Problem]]:
    if not isinstance(document.value, dict):
        return [], [((), "a test file is a mapping with testCases")]
    body, problems = load.typed(_File, document, document.value, ())
    if body is None:
        return [], [(problem.path, problem.reason) for problem in problems]
    return body.test_cases, [
        (("testCases", index, "request", name), f"{name} list is empty")
        for index, case in enumerate(body.test_cases)
        for name in ("authority", "method", "uri")
        if not getattr(case.request, name)
    ]
