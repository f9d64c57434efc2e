"""The log of requests in words: a line each."""

from __future__ import annotations

from datetime import datetime

from lab.observe import flags
from lab.observe.graph import OUTSIDE, called, milliseconds, node
from lab.observe.requests import Request


def line(request: Request, cause: Request, place: str) -> str:
    """Returns a request as time, caller → called, request, status and duration, reasons, rule.

    `cause` is the report of the proxy that answered; `place` the file and line of the rule.
    """
    when = datetime.fromtimestamp(request.time).strftime("%H:%M:%S.%f")[:-3]
    source, destination = node(request.source), called(request)
    known = cause.conflict or request.conflict
    reasons = list(dict.fromkeys((*flags.words(request), *flags.words(cause))))
    if known and "UH" in (*request.flags, *cause.flags):
        reasons = [one for one in reasons if not one.startswith("UH:")]
        known = f"UH: no healthy upstream: {known}"
    if request.early or cause.early:
        reasons.append(f"{cause.destination.pod} was not ready yet")
    if request.attempts > 1 and request.kind == "http":
        reasons.append(f"{request.attempts} tries")
    if known:
        reasons.append(known)
    elif request.failure:
        reasons.append(request.failure)
    if not reasons and request.code >= 400 and request.details == "via_upstream":
        reasons.append(f"{called(request)} itself answered so")
    # Both sides may be in one log.
    side = f"(as the {_SIDES[request.reporter]})" if _within(request) else ""
    parts = [when, f"{source} → {destination}", side, *_happened(request), "; ".join(reasons)]
    return "  ".join(part for part in (*parts, f"({place})" if place else "") if part)


_SIDES = {"source": "caller", "destination": "server"}


def _within(request: Request) -> bool:
    return node(request.source) == node(request.destination) != OUTSIDE


def _happened(request: Request) -> list[str]:
    if request.kind == "http":
        status = str(request.code) if request.code else "no answer"
        return [f"{request.method} {request.path}", status, milliseconds(request.duration)]
    # A listener inside Envoy has a name for an address.
    number = str(request.port or request.address.rpartition(":")[2])
    port = f"TCP {number}" if number.isdecimal() else "TCP"
    if request.event in ("opened", "refused"):
        return [port, request.event]
    return [port, "closed", milliseconds(request.duration)]
