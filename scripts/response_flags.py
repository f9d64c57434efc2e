"""docs/response-flags.md; `python -m scripts.response_flags` prints it."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator

from lab.names import BLACK_HOLE
from lab.observe import flags


def page() -> str:
    """Returns docs/response-flags.md."""
    details = ((start, reason) for start, (_, reason) in flags.DETAILS.items())
    return "\n".join(
        [
            "# Response flags",
            "",
            "Envoy's access log gives each request flags that say why a proxy answered by",
            "itself, or what it did. `guestbook logs deploy/ui --words` prints them in words,",
            "with the rule and its line. `python -m scripts.response_flags` writes this page.",
            "",
            *_table("flag", flags.FLAGS.items()),
            "",
            "Some reasons have no flag, and stand in the response code details:",
            "",
            *_table("details begin with", details),
            "",
            f"Of `block_all`, and of `UH` with {BLACK_HOLE}, it is an",
            f"{flags.UNKNOWN_HOST.says}.",
            f"See {flags.UNKNOWN_HOST.look}.",
            "",
        ]
    )


def _table(title: str, reasons: Iterable[tuple[str, flags.Reason]]) -> Iterator[str]:
    yield from (f"| {title} | meaning | where to look |", "| --- | --- | --- |")
    for name, reason in reasons:
        says = reason.says.format(caller="the caller's proxy", server="the server's proxy")
        yield f"| `{name}` | {says} | {reason.look} |"


if __name__ == "__main__":
    sys.stdout.write(page())
