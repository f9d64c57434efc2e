"""The environment of a container: what the manifest says, and where host names lead in the lab."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from lab.kinds.kubernetes.core import Secret
from lab.kinds.kubernetes.pod_spec import Container, EnvVar, KeyRef
from lab.model import Pod, Service

Lookup = Callable[[str, str], Any]
"""`(kind, name)` to the typed body of that object in the pod's namespace, or None."""

Resolve = Callable[[str, int | None], "tuple[str, int | None] | None"]
"""A host name and port to where they are reached; None to leave them alone."""

_REFERENCE = re.compile(r"\$\$|\$\(([A-Za-z_][A-Za-z0-9_.-]*)\)")
_ADDRESS_NAME = re.compile(r"(HOST|ADDR|ADDRESS|URL|URI|ENDPOINT|SERVER|BROKER)S?$")
_URL = re.compile(
    r"^(?P<scheme>[a-z][a-z0-9+.-]*://)(?P<user>[^@/]*@)?(?P<host>[A-Za-z0-9.-]+)"
    r"(:(?P<port>\d+))?(?P<rest>[/?#].*)?$"
)
_HOST_PORT = re.compile(r"^(?P<host>[A-Za-z][A-Za-z0-9.-]*):(?P<port>\d+)$")
_SCHEME_PORTS = {"http://": 80, "https://": 443, "redis://": 6379, "mysql://": 3306}


class MissingReferenceError(Exception):
    """A ConfigMap, a Secret or a key that the environment needs doesn't exist (yet)."""


def expand(text: str, values: Mapping[str, str]) -> str:
    """Kubernetes' `$(NAME)`: a known name is replaced, `$$` is a dollar, the rest stays."""

    def replace(match: re.Match[str]) -> str:
        if match[0] == "$$":
            return "$"
        return values.get(match[1], match[0])

    return _REFERENCE.sub(replace, text)


def declared(container: Container, pod: Pod, lookup: Lookup) -> dict[str, str]:
    """The variables the manifest declares. Raises MissingReferenceError."""
    values: dict[str, str] = {}
    for source in container.env_from:
        kind = "ConfigMap" if source.config_map_ref else "Secret"
        reference = source.config_map_ref or source.secret_ref
        if reference is None:
            continue
        body = lookup(kind, reference.name)
        if body is None and not reference.optional:
            raise MissingReferenceError(f'{kind.lower()} "{reference.name}" not found')
        for key, value in _data(body).items():
            values[source.prefix + key] = value.decode(errors="replace")
    for variable in container.env:
        value_ = _value(variable, pod, lookup)
        if value_ is not None:
            values[variable.name] = expand(value_, values) if variable.value else value_
    return values


def _data(body: Any) -> dict[str, bytes]:
    if body is None:
        return {}
    if isinstance(body, Secret):
        return body.decoded()
    return {key: text.encode() for key, text in (body.data or {}).items()}


def _value(variable: EnvVar, pod: Pod, lookup: Lookup) -> str | None:
    source = variable.value_from
    if source is None:
        return variable.value or ""
    if source.field_ref is not None:
        return _field(source.field_ref.field_path, pod)
    if source.config_map_key_ref is not None:
        return _key("ConfigMap", source.config_map_key_ref, lookup)
    if source.secret_key_ref is not None:
        return _key("Secret", source.secret_key_ref, lookup)
    return None


def _key(kind: str, reference: KeyRef, lookup: Lookup) -> str | None:
    body = lookup(kind, reference.name)
    if body is None:
        if reference.optional:
            return None
        raise MissingReferenceError(f'{kind.lower()} "{reference.name}" not found')
    value = _data(body).get(reference.key)
    if value is None:
        if reference.optional:
            return None
        raise MissingReferenceError(
            f'{kind.lower()} "{reference.name}" has no key "{reference.key}"'
        )
    return value.decode(errors="replace")


def _field(path: str, pod: Pod) -> str:
    simple = {
        "metadata.name": pod.name,
        "metadata.namespace": pod.namespace,
        "spec.serviceAccountName": pod.service_account,
        "spec.nodeName": "lab",
        "status.podIP": pod.address,
        "status.podIPs": pod.address,
        "status.hostIP": "127.0.0.1",
    }
    if path in simple:
        return simple[path]
    match = re.fullmatch(r"metadata\.(labels|annotations)\['([^']+)'\]", path)
    if match is None:
        raise MissingReferenceError(f"fieldPath {path} is not supported")
    values = pod.labels if match[1] == "labels" else pod.annotations
    return values.get(match[2], "")


def service_links(services: tuple[Service, ...], namespace: str) -> dict[str, str]:
    """What `enableServiceLinks` adds: `REDIS_SERVICE_HOST`, `REDIS_PORT=tcp://...` and so on."""
    values: dict[str, str] = {}
    for service in services:
        if service.namespace != namespace or service.cluster_ip is None or not service.ports:
            continue
        prefix = service.name.upper().replace("-", "_")
        first = service.ports[0].port
        values[f"{prefix}_SERVICE_HOST"] = service.cluster_ip
        values[f"{prefix}_SERVICE_PORT"] = str(first)
        values[f"{prefix}_PORT"] = f"tcp://{service.cluster_ip}:{first}"
    return values


def redirect(name: str, value: str, resolve: Resolve) -> str:
    """A value that names a Service, changed to the address where the lab serves it.

    There is no DNS here. Values looked at: URLs, `host:port`, and a bare host name in a variable
    that is called `..._HOST`, `..._ADDR`, `..._ENDPOINT` or the like.
    """
    if match := _URL.match(value):
        port = int(match["port"]) if match["port"] else _SCHEME_PORTS.get(match["scheme"])
        if (found := resolve(match["host"], port)) is None:
            return value
        host, new_port = found
        keep = new_port is not None and (match["port"] or new_port != port)
        suffix = f":{new_port}" if keep else ""
        return f"{match['scheme']}{match['user'] or ''}{host}{suffix}{match['rest'] or ''}"
    if match := _HOST_PORT.match(value):
        if (found := resolve(match["host"], int(match["port"]))) is None:
            return value
        return f"{found[0]}:{found[1]}"
    if _ADDRESS_NAME.search(name) and (found := resolve(value, None)) is not None:
        return found[0]
    return value
