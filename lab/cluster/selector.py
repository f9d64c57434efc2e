"""Selectors as people type them: of labels `a=b,c!=d,e in (x,y),f,!g`, of fields `a=b,c!=d`."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

Matches = Callable[[Mapping[str, str]], bool]

_SET = re.compile(r"^(\S+)\s+(in|notin)\s+\(([^)]*)\)$")
_EQUALS = re.compile(r"^([^=!\s]+)\s*(==|=|!=)\s*(\S*)$")


def parse(text: str) -> Matches:
    """Returns the test for labels that a selector stands for. Raises ValueError."""
    tests = [
        _requirement(part.strip()) for part in re.split(r",(?![^()]*\))", text) if part.strip()
    ]
    return lambda labels: all(test(labels) for test in tests)


def _requirement(text: str) -> Matches:
    if match := _SET.match(text):
        key, operator, values = match[1], match[2], {v.strip() for v in match[3].split(",")}
        if operator == "in":
            return lambda labels: labels.get(key) in values
        return lambda labels: labels.get(key) not in values
    if match := _EQUALS.match(text):
        key, operator, value = match[1], match[2], match[3]
        if operator == "!=":
            return lambda labels: labels.get(key) != value
        return lambda labels: labels.get(key) == value
    if re.fullmatch(r"![A-Za-z0-9_./-]+", text):
        return lambda labels: text[1:] not in labels
    if re.fullmatch(r"[A-Za-z0-9_./-]+", text):
        return lambda labels: text in labels
    raise ValueError(f'"{text}" is not a label selector: write for example app=ui,version!=1.0')


def parse_fields(text: str) -> list[tuple[str, bool, str]]:
    """Returns each field of a selector, whether it has to be so, and its value.

    Raises ValueError.
    """
    found = []
    for part in filter(None, text.split(",")):
        match = re.fullmatch(r"([^=!]*)(==|=|!=)(.*)", part)
        if match is None:
            raise ValueError(f"invalid selector: '{text}'; can't understand '{part}'")
        found.append((match[1], match[2] != "!=", match[3]))
    return found
