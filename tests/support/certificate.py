"""Certificates for servers of 127.0.0.1."""

from __future__ import annotations

import subprocess
from pathlib import Path


def certificate(
    folder: Path, name: str, address: str = "127.0.0.1", *options: str
) -> tuple[Path, Path]:
    """Returns the files of a self-signed certificate for an address or a name, and of its key."""
    kind = "IP" if address.replace(".", "").isdigit() else "DNS"
    certificate, key = folder / f"{name}.pem", folder / f"{name}-key.pem"
    command = "openssl req -x509 -nodes -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -days 1"
    subject = ["-subj", f"/CN={name}", "-addext", f"subjectAltName={kind}:{address}"]
    files = ["-keyout", str(key), "-out", str(certificate)]
    subprocess.run([*command.split(), *options, *subject, *files], check=True, capture_output=True)
    return certificate, key
