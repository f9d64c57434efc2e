"""Options as Go's programs take them: `-n=x`, `--flag=false`, `--dry-run` without a value."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def for_typer(argv: Sequence[str], command: Any) -> list[str]:
    """Returns the words of a command line as Typer has them; `command` is the tree of commands."""
    words: list[str] = []
    rest = list(argv)
    while rest:
        word = rest.pop(0)
        if word == "--":
            return [*words, word, *rest]
        if word == "--dry-run":
            words.append("--dry-run=client")
        elif word.startswith("-") and word != "-":
            flags, values = _options(command)
            found, more = _option(word, flags, values)
            words += found + rest[:more]
            del rest[:more]
        else:
            below = getattr(command, "commands", {})
            command = below.get(" ".join([word, *rest[:1]])) or below.get(word) or command
            words.append(word)
    return words


def _options(command: Any) -> tuple[dict[str, str], set[str]]:
    """Returns the names of the flags of a command with their negations, and of other options."""
    flags: dict[str, str] = {}
    values: set[str] = set()
    for option in command.params:
        if getattr(option, "is_flag", False):
            negation = option.secondary_opts[0] if option.secondary_opts else ""
            flags |= dict.fromkeys(option.opts, negation)
        else:
            values.update(option.opts)
    return flags, values


def _option(word: str, flags: dict[str, str], values: set[str]) -> tuple[list[str], bool]:
    """Returns an option as Typer has it, and whether its value is the next word.

    A flag that is false is left out.
    """
    name, _, value = word.partition("=")
    if value in ("true", "false") and name in flags:
        return [one for one in [name if value == "true" else flags[name]] if one], False
    if word.startswith("--"):
        return [word], word in values
    # Of `-An=x` the `A` is a flag, and `n` takes the rest.
    end = next((at for at, letter in enumerate(word) if at and f"-{letter}" not in flags), 0)
    if not end or f"-{word[end]}" not in values:
        return [word], False
    letters, rest = word[: end + 1], word[end + 1 :]
    return [letters + (rest[1:] if rest[:1] == "=" and rest[1:] else rest)], not rest
