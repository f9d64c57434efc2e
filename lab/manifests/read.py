"""Reading of the texts of manifests: files, folders and standard input.

The command line needs no more; the kinds are left to the lab that checks the texts.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path

SUFFIXES = (".yaml", ".yml", ".json")


class ManifestError(Exception):
    """Raised for faulty manifests: one line a problem, each with file and line."""

    def __init__(self, lines: Sequence[str]) -> None:
        super().__init__("\n".join(lines))
        self.lines = tuple(lines)


def read(name: str, *, recursive: bool = False) -> list[tuple[str, str]]:
    """Returns the texts behind one `-f` argument, with their names.

    It is a file, a folder, with `recursive` those below it too, a URL or `-`. Raises
    ManifestError when there is nothing to read.
    """
    if name == "-":
        return [("-", _standard_input())]
    if name.startswith(("http://", "https://")):
        return [(name, _fetched(name))]
    path = Path(name)
    if path.is_dir():
        inside = path.rglob("*") if recursive else path.iterdir()
        files = sorted(file for file in inside if file.suffix in SUFFIXES)
        files = [file for file in files if file.name != "kustomization.yaml"]
        if not files:
            raise ManifestError([f"{name}: no .yaml, .yml or .json file in this folder"])
    else:
        files = [path]
    texts = []
    for file in files:
        try:
            texts.append((str(file), file.read_text(encoding="utf-8")))
        except FileNotFoundError:
            raise ManifestError([f"{file}: no such file"]) from None
        except OSError as error:
            raise ManifestError([f"{file}: {error.strerror}"]) from None
        except UnicodeDecodeError:
            raise ManifestError([f"{file}: not UTF-8 text"]) from None
    return texts


def _standard_input() -> str:
    try:
        text = sys.stdin.read()
        # In the C locale Python lets other bytes through, as lone surrogates.
        text.encode()
    except UnicodeError:
        raise ManifestError(["-: not UTF-8 text"]) from None
    return text


MAX_BYTES = 4_000_000
"""A bound on what a URL may send."""

SECONDS = 15
"""A bound on the time a server may take to send it all."""


def _fetched(url: str) -> str:
    """Returns the text at a URL, which may redirect."""
    import httpx

    end = time.monotonic() + SECONDS
    text = b""
    try:
        with httpx.stream("GET", url, follow_redirects=True, timeout=SECONDS) as answer:
            if not answer.is_success:
                raise ManifestError([f"unable to read URL {url}: {answer.status_code}"])
            for chunk in answer.iter_bytes():
                text += chunk
                if len(text) > MAX_BYTES:
                    raise ManifestError([f"{url}: more than {MAX_BYTES // 1_000_000} MB"])
                if time.monotonic() > end:
                    raise ManifestError([f"{url}: not complete after {SECONDS} s"])
        return text.decode()
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        reason = str(error) or type(error).__name__
        raise ManifestError([f"unable to read URL {url}: {reason}"]) from None
    except UnicodeDecodeError:
        raise ManifestError([f"{url}: not UTF-8 text"]) from None
