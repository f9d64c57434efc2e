"""The environment of a container: declared variables, and addresses in place of host names."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from lab.kinds.kubernetes.core import Secret
from lab.kinds.kubernetes.pod_spec import Container, EnvVar
from lab.model import Pod, Service

Lookup = Callable[[str, str], Any]
"""`(kind, name)` to the typed body of that object in the pod's namespace, or None."""

Resolve = Callable[[str, int | None], "tuple[str, int | None] | None"]
"""A host name and port to the address that reaches them; None to leave them alone."""

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
    """Replaces Kubernetes' `$(NAME)`; `$$` is a dollar, and an unknown name stays."""

    def replace(match: re.Match[str]) -> str:
        if match[0] == "$$":
            return "$"
        return values.get(match[1], match[0])

    return _REFERENCE.sub(replace, text)


def declared(container: Container, pod: Pod, lookup: Lookup) -> dict[str, str]:
    """Returns the variables that the manifest declares. Raises MissingReferenceError."""
    values: dict[str, str] = {}
    for source in container.env_from:
        kind = "ConfigMap" if source.config_map_ref else "Secret"
        reference = source.config_map_ref or source.secret_ref
        if reference is not None:
            found = data(kind, reference.name, reference.optional, lookup)
            for key, value in found.items():
                values[source.prefix + key] = value.decode(errors="replace")
    for variable in container.env:
        text = _value(variable, pod, lookup)
        if text is not None:
            values[variable.name] = expand(text, values) if variable.value else text
    return values


def data(kind: str, name: str, optional: bool, lookup: Lookup) -> dict[str, bytes]:
    """Returns the data of a ConfigMap or Secret, none when it is optional and doesn't exist.

    Raises MissingReferenceError.
    """
    body = lookup(kind, name)
    if body is None:
        if optional:
            return {}
        raise MissingReferenceError(f'{kind.lower()} "{name}" not found')
    if isinstance(body, Secret):
        return body.decoded()
    return {key: text.encode() for key, text in (body.data or {}).items()}


def _value(variable: EnvVar, pod: Pod, lookup: Lookup) -> str | None:
    source = variable.value_from
    if source is None:
        return variable.value or ""
    if source.field_ref is not None:
        return _field(source.field_ref.field_path, pod)
    kind = "ConfigMap" if source.config_map_key_ref else "Secret"
    reference = source.config_map_key_ref or source.secret_key_ref
    if reference is None:
        return None
    value = data(kind, reference.name, reference.optional, lookup).get(reference.key)
    if value is None and not reference.optional:
        raise MissingReferenceError(
            f'{kind.lower()} "{reference.name}" has no key "{reference.key}"'
        )
    return None if value is None else value.decode(errors="replace")


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
    """Returns the variables of `enableServiceLinks`, such as `REDIS_SERVICE_HOST`."""
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
    """Returns a variable's value with a Service's name replaced by its address.

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
