"""The certificate authority: a root certificate, and one for each service account.

Private keys stay in the lab's state folder, readable by the owner alone. Proxies read their
certificates as SDS files, which are replaced by an atomic rename: Envoy takes the new one without a
restart.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from lab.envoy.tls import ROOT_FILE, ROOT_SECRET, WORKLOAD_SECRET, secret_file, spiffe_id
from lab.files import write_atomically
from lab.model import Json
from lab.xds import typed

ROOT_LIFETIME = timedelta(days=3650)
LEAF_LIFETIME = timedelta(hours=24)
RENEW_BEFORE = LEAF_LIFETIME / 2
"""A certificate is renewed when half of its life is over, as Istio's agents do."""

_BACKDATE = timedelta(minutes=2)
"""Certificates are valid a little before now, for clocks that differ."""


@dataclass(frozen=True, slots=True)
class Authority:
    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey
    trust_domain: str


def load(folder: Path, now: datetime, trust_domain: str = "cluster.local") -> Authority:
    """Returns the authority with the root in `folder`; a new one if missing, broken or expiring.

    Raises OSError when the folder can't be written.
    """
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    folder.chmod(0o700)
    file = folder / "root.pem"
    if (found := _read_root(file)) is not None:
        certificate, key = found
        if certificate.not_valid_after_utc - now > RENEW_BEFORE + LEAF_LIFETIME:
            return Authority(certificate, key, trust_domain)
    key = ec.generate_private_key(ec.SECP256R1())
    certificate = _root(key, now, trust_domain)
    write_atomically(file, private_pem(key) + _pem(certificate).encode())
    return Authority(certificate, key, trust_domain)


def issue(
    authority: Authority, folder: Path, accounts: Iterable[tuple[str, str]], now: datetime
) -> datetime:
    """Brings `folder` to one valid SDS file for each (namespace, service account), and the root's.

    Files of other accounts are removed. Returns when it must be called again for renewal.
    """
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    root = _pem(authority.certificate)
    trusted = {"trusted_ca": {"inline_string": root}}
    _write_secret(folder / ROOT_FILE, ROOT_SECRET, validation_context=trusted)
    wanted = {folder / secret_file(*account): account for account in accounts}
    renewal = now + RENEW_BEFORE
    for file, (namespace, name) in wanted.items():
        identity = spiffe_id(authority.trust_domain, namespace, name)
        leaf = _current(authority, file, identity)
        if leaf is None or leaf.not_valid_after_utc - now < RENEW_BEFORE:
            leaf, key = _leaf(authority, identity, now)
            file.parent.mkdir(exist_ok=True, mode=0o700)
            pair = {
                "certificate_chain": {"inline_string": _pem(leaf) + root},
                "private_key": {"inline_string": private_pem(key).decode()},
            }
            _write_secret(file, WORKLOAD_SECRET, tls_certificate=pair)
        renewal = min(renewal, leaf.not_valid_after_utc - RENEW_BEFORE)
    for file in folder.glob("*/*.json"):
        if file not in wanted:
            file.unlink()
    return renewal


def _root(key: ec.EllipticCurvePrivateKey, now: datetime, trust_domain: str) -> x509.Certificate:
    name = x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, trust_domain)])
    return (
        _builder(now, ROOT_LIFETIME)
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signing=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )


def _leaf(
    authority: Authority, identity: str, now: datetime
) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    key = ec.generate_private_key(ec.SECP256R1())
    both = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
    issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.key.public_key())
    certificate = (
        _builder(now, LEAF_LIFETIME)
        .subject_name(x509.Name([]))
        .issuer_name(authority.certificate.subject)
        .public_key(key.public_key())
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signing=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage(both), critical=False)
        .add_extension(issuer, critical=False)
        .add_extension(
            # Critical, because the subject is empty (RFC 5280, 4.2.1.6).
            x509.SubjectAlternativeName([x509.UniformResourceIdentifier(identity)]),
            critical=True,
        )
        .sign(authority.key, hashes.SHA256())
    )
    return certificate, key


def _builder(now: datetime, lifetime: timedelta) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .serial_number(x509.random_serial_number())
        .not_valid_before(now.astimezone(UTC) - _BACKDATE)
        .not_valid_after(now.astimezone(UTC) + lifetime)
    )


def _usage(*, signing: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signing,
        key_encipherment=not signing,
        key_cert_sign=signing,
        crl_sign=signing,
        content_commitment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _read_root(file: Path) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey] | None:
    try:
        text = file.read_bytes()
        key = serialization.load_pem_private_key(text, password=None)
        certificate = x509.load_pem_x509_certificate(text)
    except (OSError, ValueError):
        return None
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        return None
    return (certificate, key) if certificate.public_key() == key.public_key() else None


def _current(authority: Authority, file: Path, identity: str) -> x509.Certificate | None:
    """Returns the certificate in an SDS file, if this authority has issued it for an identity."""
    try:
        secret = json.loads(file.read_text())["resources"][0]["tls_certificate"]
        chain = secret["certificate_chain"]["inline_string"]
        leaf = x509.load_pem_x509_certificate(chain.encode())
        leaf.verify_directly_issued_by(authority.certificate)
    except (OSError, ValueError, LookupError, TypeError, InvalidSignature):
        return None
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    known = names.get_values_for_type(x509.UniformResourceIdentifier)
    return leaf if identity in known else None


def private_pem(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey) -> bytes:
    """Returns a private key as unencrypted PEM."""
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def _pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(serialization.Encoding.PEM).decode()


def _write_secret(file: Path, name: str, **fields: Json) -> None:
    secret = typed("extensions.transport_sockets.tls.v3.Secret", name=name, **fields)
    text = json.dumps({"resources": [secret]})
    if not file.exists() or file.read_text() != text:
        write_atomically(file, text.encode())
