"""Versions, from istio/install/versions.env (a link makes it a file of this package)."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path


@cache
def istio() -> str:
    """Returns the version of the Istio whose behaviour is reproduced."""
    text = Path(__file__).with_name("versions.env").read_text(encoding="utf-8")
    (version,) = re.findall(r"^ISTIO_VERSION=(\S+)$", text, re.MULTILINE)
    return str(version)
