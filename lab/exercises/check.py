"""Comparison of answers with what a step expects: pure functions, no traffic."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from lab.exercises.format import Certificate, Expect, Match, Share
from lab.exercises.statistics import bounds, most
from lab.exercises.traffic import Answer


@dataclass(frozen=True, slots=True)
class Difference:
    """An expectation, and what was seen instead."""

    expected: str
    seen: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """The judgement of answers: what is as expected, in words, and what isn't."""

    good: list[str]
    bad: list[Difference]


def _expression(pattern: object) -> str | None:
    """Returns the regular expression in a pattern written /so/."""
    if isinstance(pattern, str) and len(pattern) > 2 and pattern[0] == pattern[-1] == "/":
        return pattern[1:-1]
    return None


def contains(pattern: str, text: str) -> bool:
    """Whether `text` contains `pattern`, which is a regular expression when written /so/."""
    expression = _expression(pattern)
    return pattern in text if expression is None else re.search(expression, text) is not None


def equals(pattern: Any, value: Any) -> bool:
    """Whether `value` is `pattern`; a pattern written /so/ is a regular expression."""
    if (expression := _expression(pattern)) is not None:
        return re.search(expression, str(value)) is not None
    return bool(value == pattern)


def differences(match: Match, answer: Answer) -> list[Difference]:
    """Returns how `answer` differs from `match`; nothing when it doesn't."""
    return list(_differences(match, answer))


def _words(match: Match) -> str:
    """Returns the match in words: `status 200 and text 'Hello'`."""
    fields = match.model_dump(by_alias=True, exclude_unset=True)
    return " and ".join(f"{name.replace('_', ' ')} {_field(name, v)}" for name, v in fields.items())


def verdict(
    expect: Expect, answers: Sequence[Answer], share_of: Callable[[Share], float]
) -> Verdict:
    """Judges all answers of a step; `share_of` gives the true share of a `Share`."""
    good: list[str] = []
    bad: list[Difference] = []
    if expect.answer:
        wrong = [found for a in answers if (found := differences(expect.answer, a))]
        if not wrong:
            every = "every answer: " if len(answers) > 1 else ""
            good.append(every + _words(expect.answer))
        for difference, times in Counter(d for found in wrong for d in found).most_common(3):
            often = f" ({times} of {len(answers)} answers)" if len(answers) > 1 else ""
            bad.append(Difference(difference.expected, difference.seen + often))

    def judge(of: Match, text: str, fits: Callable[[int], bool]) -> None:
        number = sum(not differences(of, answer) for answer in answers)
        text = f"{_words(of)}: {text}"
        if fits(number):
            good.append(f"{text}; seen {number}")
        else:
            bad.append(Difference(text, f"{number}; the answers were {summary(answers)}"))

    for count in expect.counts:
        judge(count.of, f"{count.words} of {len(answers)}", count.allows)
    for share in expect.shares:
        allowed, text = _range(share, len(answers), share_of)
        judge(share.of, text, allowed.__contains__)
    return Verdict(good, bad)


def summary(answers: Sequence[Answer]) -> str:
    """Returns `200 from version 2.0 ×81, 200 from version 1.0 ×19`."""
    counted = Counter(answer.words for answer in answers)
    shown = [f"{text} ×{times}" if times > 1 else text for text, times in counted.most_common(5)]
    more = len(counted) - len(shown)
    return ", ".join(shown) + (f" and {more} other kinds" if more > 0 else "")


def _range(share: Share, n: int, share_of: Callable[[Share], float]) -> tuple[range, str]:
    """Returns the believable numbers of `n` answers, and the expectation in words."""
    if share.at_most is not None:
        high = most(n, share.at_most)
        return range(high + 1), f"at most {high} of {n} (a share of at most {share.at_most:g})"
    true = share_of(share)
    low, high = bounds(n, true)
    return range(low, high + 1), f"{low} to {high} of {n} (a share of {true:g})"


def _differences(match: Match, answer: Answer) -> Iterator[Difference]:
    if match.status is not None and answer.status not in match.status:
        seen = f"status {answer.status}" if answer.status else answer.words
        body = answer.body.strip()[:200]
        yield Difference(
            f"status {_field('status', match.status)}", f"{seen} {body!r}" if body else seen
        )
        return
    if match.exit is not None and answer.exit not in match.exit:
        yield Difference(
            f"exit status {_field('exit', match.exit)}",
            answer.words if answer.error or answer.status else f"exit {answer.exit}",
        )
    if match.open is not None and bool(answer.body) != match.open:
        expected = "the server answers" if match.open else "the connection is closed, nothing said"
        yield Difference(expected, f"{answer.body[:80]!r} {answer.error}".strip())
    for name, pattern in (match.headers or {}).items():
        value = answer.headers.get(name.lower())
        if value is None or not equals(pattern, value):
            yield Difference(f"header {name}: {pattern}", value or f"no header {name}")
    for name in match.no_headers or ():
        if name.lower() in answer.headers:
            yield Difference(f"no header {name}", answer.headers[name.lower()])
    for pattern in match.text or ():
        if not contains(pattern, answer.body):
            yield Difference(
                f"text {pattern!r}", _excerpt(answer.body) or answer.error or "nothing"
            )
    for pattern in match.no_text or ():
        if contains(pattern, answer.body):
            yield Difference(f"no text {pattern!r}", "it is there")
    for path, pattern in (match.json_ or {}).items():
        value = _at(answer.json, path)
        if not equals(pattern, value):
            yield Difference(f"{path} is {pattern!r}", repr(value))
    if match.takes_at_least is not None and answer.seconds < match.takes_at_least:
        yield Difference(f"at least {match.takes_at_least:g} s", f"{answer.seconds:.3f} s")
    if match.takes_less_than is not None and answer.seconds >= match.takes_less_than:
        yield Difference(f"less than {match.takes_less_than:g} s", f"{answer.seconds:.3f} s")
    if match.certificate:
        yield from _certificate(match.certificate, answer)


def _certificate(match: Certificate, answer: Answer) -> Iterator[Difference]:
    seen = answer.certificate
    if seen is None:
        yield Difference("a certificate", answer.error or answer.body[:200] or "none")
        return
    if match.uri is not None and match.uri not in seen.uris:
        yield Difference(f"name {match.uri}", ", ".join(seen.uris) or "no URI")
    if match.issuer is not None and match.issuer != seen.issuer:
        yield Difference(f"issuer {match.issuer}", seen.issuer)
    if match.empty_subject is not None and match.empty_subject != (not seen.subject):
        yield Difference("an empty subject" if match.empty_subject else "a subject", seen.subject)
    for usage in match.usage or ():
        if usage not in seen.usages:
            yield Difference(f"usage {usage}", ", ".join(seen.usages))
    if match.lifetime_at_most and seen.lifetime.total_seconds() > match.lifetime_at_most:
        yield Difference(
            f"valid for at most {match.lifetime_at_most / 3600:g} h", str(seen.lifetime)
        )


def _at(value: Any, path: str) -> Any:
    for part in path.split("."):
        if isinstance(value, list) and part.isdigit() and int(part) < len(value):
            value = value[int(part)]
        elif isinstance(value, dict):
            value = value.get(part)
        else:
            return None
    return value


def _excerpt(body: str) -> str:
    """Returns the text of a page in short, without tags and styles."""
    text = re.sub(r"<(style|script|head)\b.*?</\1>|<[^>]*>", " ", body, flags=re.DOTALL)
    return " ".join(text.split())[:300]


def _field(name: str, value: Any) -> str:
    """Returns a field's value in words: "or" for statuses, "and" for texts."""
    if name in ("takes_at_least", "takes_less_than", "lifetime_at_most"):
        return f"{value:g} s"
    if isinstance(value, dict):
        return ", ".join(f"{key}: {_field(key, item)}" for key, item in value.items())
    if isinstance(value, list):
        return (" or " if name in ("status", "exit") else " and ").join(map(str, value))
    return str(value)
