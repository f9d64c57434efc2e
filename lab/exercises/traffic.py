"""The traffic of a step: sent from outside or from a pod, and its answers."""

from __future__ import annotations

import json
import re
import shlex
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import httpx
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

from lab.exercises.format import Send, Token
from lab.exercises.target import CommandError, Completed, Target

_WRITTEN = "\n%{http_code} %{time_total}\n"
_REPORT = re.compile(r"\n(\d{3}) (\d+\.\d+)\n\Z")
_PEM = re.compile(r"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----", re.DOTALL)
_USAGES = {
    ExtendedKeyUsageOID.SERVER_AUTH: "serverAuth",
    ExtendedKeyUsageOID.CLIENT_AUTH: "clientAuth",
}


@dataclass(frozen=True, slots=True)
class Certificate:
    """A server's leaf certificate."""

    uris: tuple[str, ...]
    issuer: str
    subject: str
    usages: tuple[str, ...]
    lifetime: timedelta


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer to one request, or the result of one command."""

    exit: int = 0
    """curl's exit status: 0, or the reason that there was no answer."""
    status: int | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    """By name in lower case."""
    body: str = ""
    seconds: float = 0.0
    error: str = ""
    certificate: Certificate | None = None

    @property
    def json(self) -> Any:
        try:
            return json.loads(self.body)
        except ValueError:
            return None

    @property
    def words(self) -> str:
        """Returns a summary for a transcript."""
        if self.certificate:
            return f"certificate of {', '.join(self.certificate.uris) or 'nobody'}"
        if self.status is None:
            return self.error or f"exit {self.exit}, {self.body.strip()[:160]!r}"
        version = self.headers.get("x-ui-version")
        return f"{self.status}" + (f" from version {version}" if version else "")


def send(spec: Send, target: Target, visitor: httpx.Client) -> list[Answer]:
    """Sends it `spec.times`; returns the answers in the order of the requests."""
    if spec.certificate_of:
        return [_certificate(spec, target)]
    token = _mint(spec.token, target) if spec.token else None
    if spec.origin != "ingress":
        return [_from_pod(spec, target, token) for _ in range(spec.times)]
    if spec.parallel == 1:
        return [_from_outside(spec, visitor, token) for _ in range(spec.times)]
    with ThreadPoolExecutor(spec.parallel) as pool:
        tasks = [pool.submit(_from_outside, spec, visitor, token) for _ in range(spec.times)]
        return [task.result() for task in tasks]


def visitor(base_url: str) -> httpx.Client:
    """Returns an HTTP client that keeps its cookies and uses no proxy."""
    limits = httpx.Limits(max_keepalive_connections=0)
    return httpx.Client(base_url=base_url, trust_env=False, limits=limits)


def _mint(token: Token, target: Target) -> str:
    """Returns the token, made by `guestbook token`."""
    if token.literal is not None:
        return token.literal
    return target.run(_token_command(token)).output.strip()


def _token_command(token: Token) -> list[str]:
    argv = ["guestbook", "token"]
    if token.issuer:
        argv += ["--issuer", token.issuer]
    if token.subject:
        argv += ["--subject", token.subject]
    if token.expired:
        argv.append("--expired")
    if token.wrong_key:
        argv.append("--wrong-key")
    return argv


def pod_of(origin: str) -> tuple[str, str]:
    """Returns namespace and pod of `noistio/curl`; the namespace default may be left out."""
    namespace, _, pod = origin.rpartition("/")
    return namespace or "default", pod


def _command(spec: Send, base_url: str) -> list[str]:
    """Returns the command that a person would type to send `spec`."""
    if spec.origin == "ingress":
        argv = ["curl", "-sS", "-i"]
        if spec.form:
            argv += ["-c", "cookies", "-b", "cookies"]
        return [*argv, *_curl_options(spec, "$TOKEN"), f"{base_url}{spec.url}"]
    return ["kubectl", *_exec(spec, "$TOKEN", report=False)]


def line(spec: Send, target: Target, base_url: str) -> str:
    """Returns the command in one line, with the number of times."""
    argv = _command(spec, base_url)
    typed = target.line(argv) if argv[0] == "kubectl" else shlex.join(argv)
    if spec.token and spec.token.literal is None:
        minted = target.line(_token_command(spec.token))
        typed = f"TOKEN=$({minted}); " + typed.replace(
            "'Authorization: Bearer $TOKEN'", '"Authorization: Bearer $TOKEN"'
        )
    often = f"   # {spec.times} times" if spec.times > 1 else ""
    together = f", {spec.parallel} at a time" if spec.parallel > 1 else ""
    return typed + often + together


def _curl_options(spec: Send, token: str | None) -> list[str]:
    argv: list[str] = []
    if spec.method != "GET":
        argv += ["-X", spec.method]
    if spec.user_agent is not None:
        argv += ["-A", spec.user_agent]
    for name, value in spec.headers.items():
        argv += ["-H", f"{name}: {value}"]
    if spec.token:
        argv += ["-H", f"Authorization: Bearer {spec.token.literal or token}"]
    for name, value in (spec.form or {}).items():
        argv += ["--data-urlencode", f"{name}={value}"]
    if spec.follow:
        argv.append("-L")
    if spec.insecure:
        argv.append("-k")
    if spec.resolve:
        argv += ["--resolve", spec.resolve]
    return argv


def _exec(spec: Send, token: str | None, *, report: bool = True) -> list[str]:
    """Returns arguments of kubectl; with `report` curl adds the line that `_REPORT` reads."""
    namespace, pod = pod_of(spec.origin)
    if spec.certificate_of:
        inside = ["openssl", "s_client", "-showcerts", "-alpn", "istio"]
        inside += ["-connect", spec.certificate_of]
        return ["exec", pod, "-n", namespace, "-c", "istio-proxy", "--", *inside]
    inside = ["curl", "-sS", "-m", f"{spec.timeout:g}"]
    if spec.tcp:
        # curl's dict protocol sends a line and prints what the server says.
        inside.append(f"dict://{spec.tcp}/{spec.say or 'QUIT'}")
    else:
        written = ["-w", _WRITTEN] if report else []
        inside += ["-i", *written, *_curl_options(spec, token), spec.url or ""]
    return ["exec", pod, "-n", namespace, "-c", pod, "--", *inside]


def _from_pod(spec: Send, target: Target, token: str | None) -> Answer:
    started = time.monotonic()
    argv = ["kubectl", *_exec(spec, token)]
    done = target.run(argv, timeout=spec.timeout + 30, check=False)
    took = time.monotonic() - started
    if spec.tcp:
        return Answer(exit=done.status, body=done.output, seconds=took, error=_error(done))
    found = _REPORT.search(done.output)
    if not found:
        raise CommandError(f"`{target.line(argv)}` failed ({done.status}): {done.text}")
    headers, body = _split(done.output[: found.start()])
    status = int(found[1])
    return Answer(
        exit=done.status,
        status=status or None,
        headers=headers,
        body=body,
        seconds=float(found[2]),
        error=_error(done),
    )


def _error(done: Completed) -> str:
    lines = [line for line in done.errors.splitlines() if line.startswith("curl:")]
    return lines[0] if lines else (f"exit {done.status}" if done.status else "")


def _split(response: str) -> tuple[dict[str, str], str]:
    """Returns headers and body of the last response that `curl -i` printed."""
    headers: dict[str, str] = {}
    body = response.replace("\r\n", "\n")
    while body.startswith("HTTP/"):
        head, _, body = body.partition("\n\n")
        fields = (line.partition(":") for line in head.splitlines()[1:])
        headers = {name.lower(): value.strip() for name, _, value in fields}
    return headers, body


def _from_outside(spec: Send, visitor: httpx.Client, token: str | None) -> Answer:
    headers = dict(spec.headers)
    if spec.user_agent is not None:
        headers["user-agent"] = spec.user_agent
    if spec.token:
        headers["authorization"] = f"Bearer {token}"
    started = time.monotonic()
    try:
        response = visitor.request(
            "POST" if spec.form and spec.method == "GET" else spec.method,
            spec.url or "/",
            data=spec.form,
            headers=headers,
            follow_redirects=spec.follow,
            timeout=spec.timeout,
        )
    except httpx.HTTPError as error:
        code, words = _curl_exit(error)
        return Answer(exit=code, error=words, seconds=time.monotonic() - started)
    return Answer(
        status=response.status_code,
        headers={name.lower(): value for name, value in response.headers.items()},
        body=response.text,
        seconds=time.monotonic() - started,
    )


def _curl_exit(error: httpx.HTTPError) -> tuple[int, str]:
    """Returns the exit status of curl, and its message."""
    if isinstance(error, httpx.TimeoutException):
        return 28, "curl: (28) timed out"
    if isinstance(error, httpx.ConnectError):
        return 7, f"curl: (7) could not connect: {error}"
    if isinstance(error, httpx.RemoteProtocolError):
        return 52, f"curl: (52) empty or broken reply: {error}"
    return 56, f"curl: (56) connection reset: {error}"


def _certificate(spec: Send, target: Target) -> Answer:
    done = target.run(["kubectl", *_exec(spec, None)], timeout=30, check=False)
    return Answer(
        exit=done.status,
        body=done.output,
        certificate=parse_certificate(done.output),
        error=done.errors.strip(),
    )


def parse_certificate(text: str) -> Certificate | None:
    """Returns the first certificate in the output of `openssl s_client -showcerts`."""
    found = _PEM.search(text)
    if not found:
        return None
    leaf = x509.load_pem_x509_certificate(found[0].encode())

    def values(kind: type[Any]) -> Sequence[Any]:
        try:
            return list(leaf.extensions.get_extension_for_class(kind).value)
        except x509.ExtensionNotFound:
            return []

    names = values(x509.SubjectAlternativeName)
    return Certificate(
        uris=tuple(n.value for n in names if isinstance(n, x509.UniformResourceIdentifier)),
        issuer=leaf.issuer.rfc4514_string(),
        subject=leaf.subject.rfc4514_string(),
        usages=tuple(_USAGES.get(oid, oid.dotted_string) for oid in values(x509.ExtendedKeyUsage)),
        lifetime=leaf.not_valid_after_utc - leaf.not_valid_before_utc,
    )
