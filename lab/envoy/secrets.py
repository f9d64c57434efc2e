"""Secrets: what istiod and a proxy's agent serve, put in place of the references to it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from lab.model import Json, ProxyConfig
from lab.xds import given

SYSTEM_ROOTS = "/etc/ssl/certs/ca-certificates.crt"
_ROOT = "file-root:"
_PAIR = "file-cert:"


def listeners(config: ProxyConfig) -> list[Json]:
    """Returns the listeners with their secrets; nobody can use a chain without its secrets."""
    result = []
    for listener in config.listeners:
        chains = [_with_secrets(one, config.secrets) for one in listener.get("filter_chains", ())]
        kept = [chain for chain in chains if chain is not None]
        if kept or not chains:
            result.append(given(**{**listener, "filter_chains": kept or None}))
    return result


def clusters(config: ProxyConfig) -> list[Json]:
    """Returns the clusters with the secrets that are files of their proxies."""
    found = (_with_secrets(cluster, config.secrets) for cluster in config.clusters)
    return [cluster for cluster in found if cluster is not None]


def _with_secrets(value: Any, secrets: Mapping[str, Json]) -> Any:
    """Returns a part of a configuration with its secrets; None when one of them is missing."""
    if isinstance(value, list):
        items = [_with_secrets(item, secrets) for item in value]
        return None if any(item is None for item in items) else items
    if not isinstance(value, dict):
        return value
    result: Json = {}
    for key, item in value.items():
        if key == "common_tls_context":
            found = _context(item, secrets)
        else:
            found = _with_secrets(item, secrets) if isinstance(item, dict | list) else item
            if found is None and item is None:
                continue
        if found is None:
            return None
        result[key] = found
    return result


def _context(context: Json, secrets: Mapping[str, Json]) -> Json | None:
    result = dict(context)
    pairs = result.get("tls_certificate_sds_secret_configs", ())
    if _served(pairs):
        del result["tls_certificate_sds_secret_configs"]
        found = [_secret(pair["name"], secrets).get("tls_certificate") for pair in pairs]
        if None in found:
            return None
        result["tls_certificates"] = found
    combined = result.get("combined_validation_context", {})
    reference = combined.get("validation_context_sds_secret_config", {})
    if _served([reference]):
        del result["combined_validation_context"]
        authority = _secret(reference["name"], secrets).get("validation_context")
        if authority is None:
            return None
        own = combined.get("default_validation_context", {})
        result["validation_context"] = {**authority, **own}
    return result


def _served(references: Iterable[Json]) -> bool:
    return any("ads" in one.get("sds_config", {}) for one in references)


def _secret(name: str, secrets: Mapping[str, Json]) -> Json:
    """Returns a secret by its name, which may be that of files; empty when there is none."""
    if name.startswith(_ROOT):
        file = name.removeprefix(_ROOT)
        roots = SYSTEM_ROOTS if file == "system" else file
        return {"validation_context": {"trusted_ca": {"filename": roots}}}
    if name.startswith(_PAIR):
        chain, _, key = name.removeprefix(_PAIR).partition("~")
        pair = {"certificate_chain": {"filename": chain}, "private_key": {"filename": key}}
        return {"tls_certificate": pair}
    return secrets.get(name, {})
