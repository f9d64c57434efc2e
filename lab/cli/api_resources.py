"""api-resources."""

from __future__ import annotations

from lab.cli.output import columns, write


def api_resources() -> None:
    """List the kinds the lab supports, with their short names and versions.

    Example:
      guestbook api-resources
    """
    from lab.manifests.registry import KINDS

    rows = [
        [
            kind.plural,
            ",".join(kind.short_names),
            ",".join(f"{kind.group}/{version}".lstrip("/") for version in kind.versions),
            str(kind.namespaced).lower(),
            kind.kind,
        ]
        for kind in KINDS
    ]
    write("\n".join(columns(["NAME", "SHORTNAMES", "APIVERSION", "NAMESPACED", "KIND"], rows)))
