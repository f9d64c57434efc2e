"""`python -m bench [AREA …]`: prints a table and writes the figures as JSON."""

from __future__ import annotations

import argparse
import compileall
import importlib
import json
import sys
from dataclasses import asdict
from pathlib import Path

from bench.figure import Figure

AREAS = ("message", "guestbook", "ui", "resources", "lab", "requests")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("areas", nargs="*", choices=[*AREAS, []], metavar="AREA")
    parser.add_argument("--output", type=Path, default=Path("bench.json"), help="where JSON goes")
    arguments = parser.parse_args()
    # As in the images, and as a second start of the lab finds them.
    for package in ("services", "lab"):
        compileall.compile_dir(Path(__file__).parent.parent / package, quiet=1)
    figures: list[Figure] = []
    for area in arguments.areas or AREAS:
        print(f"==> {area}", file=sys.stderr, flush=True)
        for figure in importlib.import_module(f"bench.{area}").figures():
            figures.append(figure)
            print(
                f"{'ok  ' if figure.good else 'LOW '} {figure.ratio:5.2f} ({figure.goal})  "
                f"{figure.name}: {figure.value:,.4g} against {figure.reference:,.4g} {figure.unit}",
                flush=True,
            )
    report = [asdict(each) | {"ratio": each.ratio, "good": each.good} for each in figures]
    arguments.output.write_text(json.dumps(report, indent=2) + "\n")
    return 0 if all(figure.good for figure in figures) else 1


if __name__ == "__main__":
    sys.exit(main())
