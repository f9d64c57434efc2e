"""JSON Web Tokens for the exercises, signed with a key of each lab's own.

The private key stays in the lab's state folder. A manifest in the repository has an empty key set,
which `filled` replaces by the public half, so that no key is ever committed.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import jwt
import yaml
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from lab.files import write_atomically
from lab.istiod.authority import private_pem

ISSUER = "testing@secure.istio.io"
"""The issuer and the subject of Istio's own samples; the exercises use them too."""

LIFETIME = timedelta(hours=1)
ALGORITHM = "RS256"


class NoPlaceError(Exception):
    """A manifest without an empty key set to fill."""


def key(folder: Path) -> rsa.RSAPrivateKey:
    """Returns the signing key kept in `folder`; made on first use, or when it is unreadable.

    Raises OSError when the folder can't be written.
    """
    file = folder / "key.pem"
    try:
        found = serialization.load_pem_private_key(file.read_bytes(), password=None)
    except (OSError, ValueError):
        found = None
    if isinstance(found, rsa.RSAPrivateKey):
        return found
    made = new_key()
    for one in (folder.parent, folder):
        one.mkdir(parents=True, exist_ok=True, mode=0o700)
    write_atomically(file, private_pem(made))
    return made


def new_key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


def key_id(signer: rsa.RSAPrivateKey) -> str:
    """Returns the key's name, a digest of its public half."""
    public = signer.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return hashlib.sha256(public).hexdigest()[:16]


def key_set(signer: rsa.RSAPrivateKey) -> str:
    """Returns the JSON Web Key Set with the public half, on one line."""
    public = jwt.algorithms.RSAAlgorithm.to_jwk(signer.public_key(), as_dict=True)
    named = {**public, "kid": key_id(signer), "use": "sig", "alg": ALGORITHM}
    return json.dumps({"keys": [named]}, separators=(",", ":"))


def mint(
    signer: rsa.RSAPrivateKey,
    now: datetime,
    *,
    issuer: str = ISSUER,
    subject: str = ISSUER,
    audiences: Sequence[str] = (),
    lifetime: timedelta = LIFETIME,
    claims: Mapping[str, Any] | None = None,
    kid: str | None = None,
) -> str:
    """Returns a signed token. `kid` names the key in its header; by default the signer."""
    payload: dict[str, Any] = {
        "iss": issuer,
        "sub": subject,
        "iat": int(now.timestamp()),
        "exp": int((now + lifetime).timestamp()),
    }
    if audiences:
        payload["aud"] = audiences[0] if len(audiences) == 1 else list(audiences)
    payload.update(claims or {})
    headers = {"kid": kid or key_id(signer)}
    return jwt.encode(payload, signer, algorithm=ALGORITHM, headers=headers)


def filled(manifest: str, keys: str) -> str:
    """Returns a manifest with the empty `jwks` of RequestAuthentications replaced; the rest stays.

    Raises NoPlaceError when there is none, yaml.YAMLError when it can't be read.
    """
    places = list(_empty_sets(manifest))
    if not places:
        raise NoPlaceError(
            "no RequestAuthentication with an empty key set (jwks: '{\"keys\":[]}') to fill"
        )
    for start, end in reversed(places):
        manifest = f"{manifest[:start]}'{keys}'{manifest[end:]}"
    return manifest


def _empty_sets(manifest: str) -> Iterator[tuple[int, int]]:
    for document in yaml.compose_all(manifest, Loader=yaml.SafeLoader):
        if _scalar(_child(document, "kind")) != "RequestAuthentication":
            continue
        rules = _child(_child(document, "spec"), "jwtRules")
        for rule in rules.value if isinstance(rules, yaml.SequenceNode) else ():
            node = _child(rule, "jwks")
            text = _scalar(node)
            if node is not None and text is not None and _is_empty(text):
                yield node.start_mark.index, node.end_mark.index


def _is_empty(text: str) -> bool:
    try:
        return bool(json.loads(text) == {"keys": []})
    except ValueError:
        return False


def _child(node: yaml.Node | None, name: str) -> yaml.Node | None:
    if isinstance(node, yaml.MappingNode):
        pairs: list[tuple[yaml.Node, yaml.Node]] = node.value
        return next((value for found, value in pairs if _scalar(found) == name), None)
    return None


def _scalar(node: yaml.Node | None) -> str | None:
    return node.value if isinstance(node, yaml.ScalarNode) else None
