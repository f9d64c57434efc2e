"""The format of `exercise.yaml`: the steps of a lesson, for a machine.

A step acts (`apply`, `delete`, `label`, `send`, `command`) and says what must be seen (`expect`).
docs/exercise-format.md explains each field; `istio/exercise.schema.json` is made from these models.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema, model_validator

from lab import durations

TargetName = Literal["lab", "kubectl"]


def seconds(value: Any) -> Any:
    """Returns `250ms`, `5s`, `2m`, `24h` as seconds; other types are left to pydantic."""
    return durations.parse(value).total_seconds() if isinstance(value, str) else value


Duration = Annotated[
    float,
    BeforeValidator(seconds),
    WithJsonSchema({"type": "string", "pattern": r"^\d+(\.\d+)?(ms|s|m|h)$"}),
]
"""Seconds; written with a unit."""


def _listed(value: Any) -> Any:
    return value if isinstance(value, list) or value is None else [value]


def _one_or_many(kind: str) -> WithJsonSchema:
    return WithJsonSchema({"anyOf": [{"type": kind}, {"type": "array", "items": {"type": kind}}]})


Strings = Annotated[list[str], BeforeValidator(_listed), _one_or_many("string")]
"""One string or a list of them."""

Integers = Annotated[list[int], BeforeValidator(_listed), _one_or_many("integer")]
"""One number or a list of the allowed ones."""

Workload = Annotated[
    str, Field(description="label selector, or `pod/NAME`; `namespace/…` before it")
]


class Part(BaseModel):
    """Base of every part: an unknown field is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Token(Part):
    """A JSON Web Token to send, minted by `guestbook token`."""

    issuer: str | None = Field(None, description="`iss`; the trusted issuer when absent")
    subject: str | None = Field(None, description="`sub`; the subject the policy names when absent")
    expired: bool = Field(False, description="already expired")
    wrong_key: bool = Field(False, description="signed by a key that is not in the JWKS")
    literal: str | None = Field(None, description="this text instead of a token")


class Send(Part):
    """Traffic. Exactly one of `url`, `tcp` and `certificate_of`."""

    url: str | None = Field(
        None, description="a path (through the ingress gateway) or, from a pod, a whole URL"
    )
    tcp: str | None = Field(None, description="`host:port` to open a TCP connection to, from a pod")
    certificate_of: str | None = Field(
        None, description="`host:port` whose certificate chain the pod's proxy asks for"
    )
    origin: str = Field(
        "ingress",
        alias="from",
        description="`ingress`: from outside through the ingress gateway. Otherwise a pod, "
        "`name` (namespace default) or `namespace/name`; it needs curl",
    )
    method: str = Field("GET", description="HTTP method")
    headers: dict[str, str] = Field(default_factory=dict)
    user_agent: str | None = None
    form: dict[str, str] | None = Field(None, description="form fields; makes it a POST")
    token: Token | None = Field(None, description="sent as `Authorization: Bearer …`")
    say: str | None = Field(None, description="for `tcp`: a command to say first (Redis: PING)")
    resolve: str | None = Field(None, description="curl's --resolve, `host:port:address`")
    insecure: bool = Field(False, description="do not check the server's certificate (curl -k)")
    follow: bool = Field(False, description="follow redirects (curl -L)")
    times: int = Field(1, ge=1, le=1000)
    parallel: int = Field(1, ge=1, le=64, description="how many at the same time")
    timeout: Duration = Field(20.0, description="for one request")

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        if sum(x is not None for x in (self.url, self.tcp, self.certificate_of)) != 1:
            raise ValueError("write exactly one of url, tcp and certificate_of")
        if self.origin == "ingress":
            if self.url is None or not self.url.startswith("/"):
                raise ValueError("from the ingress, url is a path such as /; else say from: POD")
            if self.resolve or self.insecure:
                raise ValueError("resolve and insecure are for requests from a pod")
        elif self.url is not None and "://" not in self.url:
            raise ValueError("from a pod, url is a whole URL such as http://ui/")
        if self.parallel > 1 and self.origin != "ingress":
            raise ValueError("parallel requests are sent through the ingress only")
        if self.say and not self.tcp:
            raise ValueError("say belongs to tcp")
        return self


class Certificate(Part):
    """A server's certificate."""

    uri: str | None = Field(None, description="the SPIFFE name in the subject alternative name")
    issuer: str | None = Field(None, description="RFC 4514 form, such as O=cluster.local")
    empty_subject: bool | None = None
    usage: Strings | None = Field(None, description="extended key usages: serverAuth, clientAuth")
    lifetime_at_most: Duration | None = None


class Match(Part):
    """Properties of an answer: text is contained, a header is equal, `/…/` is an expression."""

    status: Integers | None = Field(None, description="HTTP status, or a list of allowed ones")
    exit: Integers | None = Field(
        None, description="curl's exit status (7 refused, 35 TLS, 52 empty, 56 reset), or a list"
    )
    headers: dict[str, str] | None = None
    no_headers: Strings | None = Field(None, description="headers that must be absent")
    text: Strings | None = Field(None, description="what the body, or the output, contains")
    no_text: Strings | None = None
    json_: dict[str, Any] | None = Field(
        None, alias="json", description="values by dotted path, such as `_embedded.messages.0.id`"
    )
    takes_at_least: Duration | None = None
    takes_less_than: Duration | None = None
    open: bool | None = Field(None, description="for `tcp`: the server's bytes arrive, or not")
    certificate: Certificate | None = None


class Amount(Part):
    """An allowed number. Without any field: at least one."""

    exactly: int | None = Field(None, ge=0)
    at_least: int | None = Field(None, ge=0)
    at_most: int | None = Field(None, ge=0)

    def allows(self, number: float) -> bool:
        if self.exactly is not None:
            return number == self.exactly
        least = 1 if self.at_least is self.at_most is None else self.at_least
        return (least is None or number >= least) and (
            self.at_most is None or number <= self.at_most
        )

    @property
    def words(self) -> str:
        if self.exactly is not None:
            return f"exactly {self.exactly}"
        bounds = (("at least", self.at_least), ("at most", self.at_most))
        given = (f"{word} {bound}" for word, bound in bounds if bound is not None)
        return " and ".join(given) or "at least 1"


class Count(Amount):
    """The number of answers that match."""

    of: Match


class ByPods(Part):
    """A share by the number of ready pods: those of `pods` among those of `among`."""

    pods: str = Field(description="label selector")
    among: str = Field(description="label selector")


class Share(Part):
    """The share of the answers that match, judged by an exact binomial test.

    The bounds are the widest that a correct system leaves less than once in ten million runs.
    """

    of: Match
    expected: float | ByPods | None = Field(None, description="the true share, 0 to 1")
    at_most: float | None = Field(None, ge=0, le=1, description="the true share is at most this")

    @model_validator(mode="after")
    def _one_bound(self) -> Self:
        if (self.expected is None) == (self.at_most is None):
            raise ValueError("write either expected or at_most")
        if isinstance(self.expected, float) and not 0 <= self.expected <= 1:
            raise ValueError("expected is between 0 and 1")
        return self


class Logs(Amount):
    """Lines that a container wrote since the step began, summed over the pods."""

    of: Workload
    container: str | None = Field(None, description="`istio-proxy` for the access log")
    line: str = Field(description="what the line contains, or /regular expression/")


class Stats(Amount):
    """An Envoy statistic, summed over the pods and over the names that match."""

    of: Workload
    name: str = Field(description="regular expression, searched in the statistic's name")
    since_start: bool = Field(False, description="count from the beginning, not from the step's")


class Metric(Amount):
    """A Prometheus sample of a proxy, summed over the pods and the label sets that match."""

    of: str
    name: str
    labels: dict[str, str] = Field(default_factory=dict, description="value, or /regex/")


class Endpoint(Part):
    """The state of one address of a cluster in the proxies of some pods."""

    of: str = Field(description="label selector of the pods whose proxies are asked")
    cluster: str = Field(description="Envoy's cluster name, as outbound|80||ui.default.svc…")
    pod: str = Field(description="name of the pod behind the address")
    ejected: bool = Field(description="taken out by outlier detection")


class Pods(Part):
    """The pods of a selector, as `kubectl get pods` shows them."""

    of: str
    number: int | None = Field(None, ge=0)
    ready: str | None = Field(None, description="the READY column, such as 2/2")
    containers: Strings | None = Field(
        None, description="containers that every pod has (native sidecars included)"
    )
    no_containers: Strings | None = None
    stays: Duration | None = Field(None, description="it must hold for so long")


class Traces(Part):
    """A trace in Zipkin whose root has this in its URL."""

    url: str = Field(description="part of the tag http.url of one of its spans")
    services: Strings = Field(description="services that must have a span in that one trace")
    at_least: int = Field(1, ge=1, description="spans")


class Expect(Part):
    """Everything that must be seen."""

    answer: Match | None = Field(None, description="what every answer is like")
    counts: list[Count] = Field(default_factory=list)
    shares: list[Share] = Field(default_factory=list)
    logs: list[Logs] = Field(default_factory=list)
    stats: list[Stats] = Field(default_factory=list)
    metrics: list[Metric] = Field(default_factory=list)
    endpoints: list[Endpoint] = Field(default_factory=list)
    pods: list[Pods] = Field(default_factory=list)
    traces: list[Traces] = Field(default_factory=list)


class Remember(Part):
    """Name a pod: `BAD: {pod: app=message-service}` gives ${BAD} and its address ${BAD_IP}."""

    pod: str = Field(description="label selector; `namespace/…` before it")
    index: int = Field(0, ge=0, description="which, in order of name")


class Step(Part):
    """One step: an action, and what must be seen."""

    step: str = Field(description="what happens, in words")
    targets: list[TargetName] = Field(default=["lab", "kubectl"])
    needs: Literal["mysql"] | None = Field(None, description="skipped, with the reason, without it")
    apply: Strings = Field(default_factory=list, description="files, relative to the exercise")
    delete: Strings = Field(default_factory=list, description="files, as for apply")
    label: dict[str, str] = Field(
        default_factory=dict, description="labels by namespace: `demo: istio-injection=enabled`"
    )
    ready: Strings = Field(
        default_factory=list, description="wait for `deployment/NAME` or `[namespace/]pod/NAME`"
    )
    remember: dict[str, Remember] = Field(default_factory=dict)
    minute_left: Duration | None = Field(
        None, description="wait until so much of the clock's minute is left (rate limits)"
    )
    send: Send | None = None
    command: str | None = Field(None, description="a command: kubectl, istioctl or guestbook …")
    expect: Expect = Field(default_factory=Expect)
    within: Duration | None = Field(
        None, description="send and look again until it is so, for so long"
    )

    @model_validator(mode="after")
    def _makes_sense(self) -> Self:
        answers = self.send is not None or self.command is not None
        about = self.expect
        if self.send and self.command:
            raise ValueError("a step has either send or command")
        if not answers and (about.answer or about.counts or about.shares):
            raise ValueError("answer, counts and shares need something to send")
        if self.within and about.shares:
            raise ValueError(
                "shares are measured once: looking again until they fit would prove nothing; "
                "put the waiting in a step before"
            )
        if self.command and self.command.split()[0] not in {"kubectl", "istioctl", "guestbook"}:
            raise ValueError("a command is kubectl, istioctl or guestbook")
        if self.minute_left and self.minute_left > 55:
            raise ValueError("minute_left is at most 55s")
        return self


class CounterProof(Part):
    """A change of one manifest that must make the run fail, which proves that the checks check."""

    because: str = Field(description="what goes wrong without it, in words")
    file: str = Field(description="the manifest that is changed, relative to the exercise")
    object: str | None = Field(None, description="`Kind/name` when the file has several objects")
    remove: Strings = Field(
        default_factory=list, description="fields, such as spec.http.0.retries.retryOn"
    )
    set: dict[str, Any] = Field(default_factory=dict, description="new values by field")
    fails: str = Field(description="the step that must fail (its words, or the start of them)")
    targets: list[TargetName] = Field(default=["lab", "kubectl"])

    @model_validator(mode="after")
    def _changes(self) -> Self:
        if not self.remove and not self.set:
            raise ValueError("write remove or set")
        return self


class Exercise(Part):
    """A whole exercise."""

    title: str
    teaches: str = Field(description="what one knows afterwards, in a sentence")
    minutes: int = Field(ge=1, description="for a person who reads the lesson")
    codelab: list[str] = Field(
        default_factory=list, description="the steps of the 2020 codelab it covers: E15 …"
    )
    needs: str | None = Field(None, description="what it needs beyond the guestbook, in words")
    baseline: bool = Field(True, description="the ingress of exercise 02 is there at the start")
    steps: list[Step] = Field(min_length=1)
    lastly: list[Step] = Field(
        default_factory=list, description="done at the end whatever happened, before restoring"
    )
    counterproof: list[CounterProof] = Field(min_length=1)

    @model_validator(mode="after")
    def _names_fit(self) -> Self:
        titles = [step.step for step in self.steps]
        if len(set(titles)) != len(titles):
            raise ValueError("two steps have the same words")
        for proof in self.counterproof:
            if not any(title.startswith(proof.fails) for title in titles):
                raise ValueError(f"counterproof: no step begins with {proof.fails!r}")
        return self
