"""Writes Istio's schema, the types of its kinds and docs/supported-fields.md.

`python -m scripts.istio_schema` writes the types (`lab/kinds/*/types.py`, and those of several
kinds in `lab/kinds/types.py`) and the page from `lab/resources/istio.json`; with `--check` it
writes nothing and ends with status 1 when one of them is stale. With a version or a file of CRDs it
first writes the schema of that version, and prints the fields that came and went.
"""

from __future__ import annotations

import importlib
import json
import keyword
import re
import subprocess
import sys
import urllib.request
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import yaml
from pydantic.alias_generators import to_camel

from lab.resources.checks import matches
from lab.resources.resource import Check

ROOT = Path(__file__).parents[1]
SCHEMA = ROOT / "lab" / "resources" / "istio.json"
URL = (
    "https://raw.githubusercontent.com/istio/istio/{}/manifests/charts/base/files/crd-all.gen.yaml"
)
AT_LEAST_1_MS = "duration(self) >= duration('1ms')"
DURATION = "duration"

Json = dict[str, Any]


@dataclass(frozen=True)
class Shape:
    """The choices for the types of a kind that its schema leaves open, by patterns of fields."""

    names: dict[str, str] = field(default_factory=dict)
    """Names of classes, as in Istio's API, where the capitalised field is another."""
    zero: str = ""
    """Fields that have protobuf's zero value when they are not set, and not None."""
    optional: str = ""
    """Lists and maps that are None when they are not set, and not empty."""
    required: str = ""
    """Fields that istiod, not the schema, requires."""
    types: dict[str, str] = field(default_factory=dict)
    """Types that a schema cannot name."""
    attributes: dict[str, str] = field(default_factory=dict)
    """Attributes of fields whose snake_case name is another."""


STRING_MATCH = (
    "**.uri|scheme|method|authority|headers{}|withoutHeaders{}|queryParams{}|allowOrigins[]"
)
SHAPES = {
    "AuthorizationPolicy": Shape(
        names={"**.when[]": "Condition"},
        zero="spec.action",
        optional="**.rules|from|to|when|values|notValues **.source|operation.*",
        required="**.key",
    ),
    "DestinationRule": Shape(
        names={
            "**.http": "HTTPSettings",
            "**.http2KeepAlive": "ConnectionKeepalive",
            "**.tcp": "TCPSettings",
            "**.connectionPool": "ConnectionPoolSettings",
            "**.httpCookie": "HTTPCookie",
            "**.attributes[]": "CookieAttribute",
            "**.tls": "ClientTLSSettings",
            "**.port": "PortSelector",
            "**.portLevelSettings[]": "PortTrafficPolicy",
            "**.failover[]": "Failover",
            "**.workloadSelector": "LabelSelector",
        },
        zero=(
            "**.minimumRingSize|tableSize|maxConnections|http1MaxPendingRequests|http2MaxRequests"
            "|maxRequestsPerConnection|maxRetries|maxConcurrentStreams|mode|number|from"
            " **.failover[].to **.connectionPool.http|tcp"
        ),
        optional="spec.exportTo",
        required="spec",
        types={"**.tcp.idleTimeout": "Duration", "**.ttl|budgetInterval": "Duration"},
        attributes={"consecutive5xxErrors": "consecutive_5xx_errors"},
    ),
    "EnvoyFilter": Shape(
        names={
            "**.configPatches[]": "ConfigPatch",
            "**.match": "Match",
            "**.proxy": "ProxyMatch",
            "**.listener": "ListenerMatch",
            "**.filterChain": "FilterChainMatch",
            "**.filter": "FilterMatch",
            "**.subFilter": "SubFilterMatch",
            "**.routeConfiguration": "RouteConfigurationMatch",
            "**.vhost": "VirtualHostMatch",
            "**.route": "RouteMatch",
            "**.cluster": "ClusterMatch",
        },
        zero=(
            "**.match|patch|proxy|filterChain|filter|subFilter|vhost|route|name|sni|transportProtocol|applicationProtocols|destinationPort|portNumber"
            "|portName|listenerFilter|action|domainName|gateway|service|subset|proxyVersion"
            "|context|operation|applyTo|priority"
        ),
        optional="**.value",
    ),
    "Gateway": Shape(
        names={"**.port": "GatewayPort", "**.tls": "ServerTLSSettings"},
        required="spec **.servers[].port|hosts **.port.number|protocol|name",
    ),
    "PeerAuthentication": Shape(
        names={"**.mtls|portLevelMtls{}": "MutualTLS"},
        optional="**.portLevelMtls",
        types={"**.portLevelMtls": "dict[PortKey, MutualTLS]"},
    ),
    "ProxyConfig": Shape(),
    "RequestAuthentication": Shape(
        names={
            "**.jwtRules[]": "JWTRule",
            "**.fromHeaders[]": "JWTHeader",
            "**.outputClaimToHeaders[]": "ClaimToHeader",
        },
        zero="**.issuer|prefix|outputPayloadToHeader",
        attributes={"jwksUri": "keys_uri", "jwks_uri": "keys_uri"},
    ),
    "ServiceEntry": Shape(
        names={"**.ports[]": "ServiceEntryPort", "**.endpoints[]": "WorkloadEntrySpec"},
        zero="spec.location|resolution",
        optional="spec.exportTo",
    ),
    "Sidecar": Shape(
        names={
            "**.egress[]": "IstioEgressListener",
            "**.ingress[]": "IstioIngressListener",
            "**.egressProxy": "Destination",
            "**.egressProxy.port": "PortSelector",
            "**.port": "SidecarPort",
        },
        zero=(
            "**.outboundTrafficPolicy.mode **.bind|captureMode|defaultEndpoint "
            "**.port.name|number|protocol|targetPort"
        ),
        required="spec **.egress[].hosts",
        types={
            "**.inboundConnectionPool|connectionPool": (
                "lab.kinds.destination_rule.types.ConnectionPoolSettings"
            ),
            "**.ingress[].tls": "lab.kinds.gateway.types.ServerTLSSettings",
        },
    ),
    "Telemetry": Shape(
        names={
            "**.match": "ModeSelector",
            "**.providers[]": "ProviderRef",
            "**.customTags{}": "CustomTag",
            "**.literal|formatter": "LiteralTag",
            "**.header|environment": "NamedTag",
            "**.accessLogging[]": "AccessLogging",
            "**.tracing[]": "Tracing",
            "**.filter": "AccessLogFilter",
        },
        zero="**.match.mode **.defaultValue|expression",
        optional="**.customTags",
    ),
    "VirtualService": Shape(
        names={
            STRING_MATCH: "StringMatch",
            "**.http[]": "HTTPRoute",
            "**.tls[]": "TLSRoute",
            "**.tcp[]": "TCPRoute",
            "**.tls[].match[]": "TLSMatchAttributes",
            "**.tcp[].match[]": "L4MatchAttributes",
            "**.tls[]|tcp[].route[]": "RouteDestination",
            "**.match[]": "HTTPMatchRequest",
            "**.route[]": "HTTPRouteDestination",
            "**.destination|mirror": "Destination",
            "**.mirrors[]": "HTTPMirrorPolicy",
            "**.mirrorPercentage|percentage": "Percent",
            "**.port": "PortSelector",
            "**.headers.request|response": "HeaderOperations",
            "**.redirect": "HTTPRedirect",
            "**.directResponse": "HTTPDirectResponse",
            "**.body": "HTTPBody",
            "**.rewrite": "HTTPRewrite",
            "**.uriRegexRewrite": "RegexRewrite",
            "**.retries": "HTTPRetry",
            "**.fault": "HTTPFaultInjection",
            "**.delay": "FaultDelay",
            "**.abort": "FaultAbort",
        },
        zero=(
            "**.route[].weight **.uriRegexRewrite.match|rewrite **.attempts "
            "**.percentage|mirrorPercentage.value **.destination|mirror.port.number "
            "**.headers.request|response"
        ),
        optional="spec.exportTo",
        required="spec **.destination",
        attributes={"mirror_percent": "mirror_percent_snake"},
    ),
    "WorkloadEntry": Shape(required="spec"),
}


def folder(kind: str) -> Path:
    """Returns the folder of a kind: lab/kinds/virtual_service."""
    return ROOT / "lab" / "kinds" / re.sub(r"(?<=[a-z])(?=[A-Z])", "_", kind).lower()


class Types:
    """The types of one kind: the text of each class by its name."""

    def __init__(self, kind: str, schema: Json, checks: tuple[Check, ...]) -> None:
        self._kind = kind
        self._shape = SHAPES[kind]
        self._silent = [check for check in checks if check.reason]
        self.classes: dict[str, str] = {}
        self.imported: dict[str, str] = {}
        self._model(schema, kind, "")

    def _model(self, schema: Json, name: str, path: str) -> str:
        """Writes the class of an object and of those below it; returns its name."""
        groups = [group for group in _one_of(schema) if len(group) > 1]
        exclusive = {member for group in groups for member in group}
        lines = [f"    one_of = {tuple(groups)!r}\n"] if groups else []
        taken: set[str] = set()
        # A second spelling, as mirror_percent of mirrorPercent, comes last.
        names = sorted(schema.get("properties", {}), key=lambda name: "_" in name)
        for key in names:
            inner = schema["properties"][key]
            where = f"{path}.{key}".lstrip(".")
            attribute = self._attribute(key)
            if attribute in taken:
                continue
            taken.add(attribute)
            alternatives = [other for other in names if self._attribute(other) == attribute]
            required = key in schema.get("required", ()) or _any(self._shape.required, where)
            kind = self._type(inner, key, where)
            lines.append(
                self._field(attribute, alternatives, kind, inner, where, required, key in exclusive)
            )
        text = f"class {name}(Model):\n{''.join(lines) or '    pass' + chr(10)}"
        if self.classes.setdefault(name, text) != text:
            raise SystemExit(f"{self._kind}: two classes called {name}; name the one of {path}")
        return name

    def _attribute(self, name: str) -> str:
        return self._shape.attributes.get(name) or _snake(name)

    def _type(self, schema: Json, name: str, path: str) -> str:
        for pattern, text in self._shape.types.items():
            if matches(pattern, path):
                module, _, named = text.rpartition(".")
                if module:
                    self.imported[named] = module
                return named
        if any(check.severity == "error" and matches(check.where, path) for check in self._silent):
            return "Any"
        if "enum" in schema:
            return f"Literal[{', '.join(map(repr, schema['enum']))}]"
        match schema.get("type"):
            case "array":
                inner = self._type(schema["items"], name.removesuffix("s"), f"{path}[]")
                return f"list[{inner}]"
            case "object" if "properties" in schema:
                chosen = {"spec": f"{self._kind}Spec", "spec.selector": "LabelSelector"}
                chosen |= self._shape.names
                names = (text for pattern, text in chosen.items() if matches(pattern, path))
                return self._model(schema, next(names, name[:1].upper() + name[1:]), path)
            case "object":
                values = schema.get("additionalProperties")
                inner = self._type(values, name, f"{path}{{}}") if values else "Any"
                return f"dict[str, {inner}]"
            case "string" if schema.get("format") == DURATION:
                return "PositiveDuration"
            case kind:
                plain = {"string": "str", "integer": "int", "number": "float", "boolean": "bool"}
                return _limited(plain[str(kind)], schema)

    def _field(
        self, attribute: str, names: list[str], kind: str, schema: Json, path: str,
        required: bool, exclusive: bool,
    ) -> str:  # fmt: skip
        options = []
        if len(names) > 1 or "_" in names[0]:
            options.append(f"validation_alias=AliasChoices({', '.join(map(repr, names))})")
        elif to_camel(attribute) != names[0]:
            options.append(f"alias={names[0]!r}")
        default = None if required else self._default(kind, schema, path, exclusive)
        if default == "None" and kind != "Any":
            kind += " | None"
        if kind != "Any" and schema["type"] in ("array", "object") and (limits := _limits(schema)):
            options.append(limits)
        if default in ("list", "dict"):
            options.insert(0, f"default_factory={default}")
        elif default is not None and options:
            options.insert(0, f"default={default}")
        elif default is not None:
            return f"    {attribute}: {kind} = {default}\n"
        given = f" = Field({', '.join(options)})" if options else ""
        return f"    {attribute}: {kind}{given}\n"

    def _default(self, kind: str, schema: Json, path: str, exclusive: bool) -> str:
        if kind == "Any" or any(matches(check.where, path) for check in self._silent):
            return "None"
        container = {"array": "list", "object": "dict"}.get(schema["type"], "")
        if container and "properties" not in schema:
            return "None" if _any(self._shape.optional, path) else container
        if path == "spec":
            return f"{kind}()"
        if exclusive or schema.get("nullable"):
            return "None"
        if schema["type"] == "boolean":
            return "False"
        if not _any(self._shape.zero, path):
            return "None"
        if container:
            return f"{kind}()"
        if "enum" in schema:
            return repr(schema["enum"][0])
        return {"string": '""', "integer": "0", "number": "0.0"}[schema["type"]]


def _any(patterns: str, path: str) -> bool:
    return any(matches(pattern, path) for pattern in patterns.split())


def _snake(name: str) -> str:
    text = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()
    return f"{text}_" if keyword.iskeyword(text) else text


def _limited(kind: str, schema: Json) -> str:
    """Returns a type with the limits of its schema."""
    limits = _limits(schema)
    if limits == "ge=0, le=4294967295":
        return "Unsigned"
    if schema.get("format") == "int32":
        return "Int32"
    return f"Annotated[{kind}, Field({limits})]" if limits else kind


def _limits(schema: Json) -> str:
    limits = {
        "minimum": "ge", "maximum": "le", "minLength": "min_length", "maxLength": "max_length",
        "pattern": "pattern", "minItems": "min_length", "maxItems": "max_length",
        "minProperties": "min_length", "maxProperties": "max_length",
    }  # fmt: skip
    return ", ".join(
        f"{argument}={schema[key]!r}" for key, argument in limits.items() if key in schema
    )


def _one_of(schema: Json) -> Iterator[tuple[str, ...]]:
    """Yields the groups of fields of which one at most may be set."""
    for part in (schema, *schema.get("allOf", ())):
        members = [
            option["required"][0] for option in part.get("oneOf", ()) if "required" in option
        ]
        if members:
            yield tuple(members)


def _imports(body: str, imported: dict[str, str]) -> str:
    known = {
        "typing": ("Annotated", "Any", "Literal"),
        "pydantic": ("AliasChoices", "Field"),
        "lab.resources.resource": ("Model",),
        "lab.resources.values": ("Duration", "Int32", "PortKey", "PositiveDuration", "Unsigned"),
    }
    for name, module in imported.items():
        known[module] = (*known.get(module, ()), name)
    lines = []
    for module in sorted(known, key=lambda module: (module.startswith("lab"), module)):
        used = [name for name in known[module] if _uses(body, name)]
        lines += [f"from {module} import {', '.join(used)}\n"] if used else []
    return "".join(lines)


def _uses(body: str, name: str) -> bool:
    return re.search(rf"\b{name}\b", body) is not None


def formatted(text: str, file: Path) -> str:
    """Returns Python text as ruff formats it."""
    ruff = str(Path(sys.executable).with_name("ruff"))
    for command in (
        ["check", "--quiet", "--fix", "--select=I,E501"], ["format", "--quiet"],
    ):  # fmt: skip
        text = subprocess.run(  # noqa: S603
            [ruff, *command, f"--stdin-filename={file}", "-"],
            input=text, capture_output=True, text=True, check=False, cwd=ROOT,
        ).stdout  # fmt: skip
    return text


def stripped(version: str, text: str) -> Json:
    """Returns the schemas of the lab's kinds in a file of CRDs, without what they don't need."""
    kinds = {}
    for document in yaml.load_all(text, yaml.CSafeLoader):
        spec = (document or {}).get("spec", {})
        kind = spec.get("names", {}).get("kind")
        if kind not in SHAPES:
            continue
        first = spec["versions"][0]["schema"]["openAPIV3Schema"]
        first["properties"].pop("status", None)
        kinds[kind] = {
            "group": spec["group"],
            "kind": kind,
            "plural": spec["names"]["plural"],
            "shortNames": spec["names"].get("shortNames", []),
            "versions": sorted((item["name"] for item in spec["versions"]), key=_priority),
            "schema": _plain(first),
        }
    return {"istio": version, "license": "Apache-2.0", "kinds": dict(sorted(kinds.items()))}


def _priority(version: str) -> tuple[bool, str, int]:
    """Returns the place of a version in Kubernetes' order: v1, v1beta1, v1alpha3."""
    _, stage, number = re.split("(alpha|beta|$)", version, maxsplit=1)
    return stage != "", "" if stage == "beta" else stage, -int(number or 0)


def _plain(schema: Any) -> Any:
    """Returns a schema without Kubernetes' extensions; of CEL rules those about durations stay."""
    if isinstance(schema, list):
        return [_plain(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    rules = schema.get("x-kubernetes-validations", ())
    kept = {key: _plain(value) for key, value in schema.items() if not key.startswith("x-")}
    if any(rule["rule"] == AT_LEAST_1_MS for rule in rules):
        kept["format"] = DURATION
    return kept


def fields_of(schema: Json, prefix: str = "") -> Iterator[str]:
    """Yields every field that a schema has."""
    for name, inner in schema.get("properties", {}).items():
        yield f"{prefix}{name}"
        yield from fields_of(inner, f"{prefix}{name}.")
    for key, mark in (("items", "[]"), ("additionalProperties", "{}")):
        if isinstance(schema.get(key), dict):
            yield from fields_of(schema[key], f"{prefix.removesuffix('.')}{mark}.")


def files(schema: Json) -> Iterator[tuple[Path, str]]:
    """Yields each file that is written from the schema, with its text."""
    found: dict[str, Types] = {}
    # The checks are imported without the types, which are yet to be written.
    for module in ("lab.kinds", *(f"lab.kinds.{folder(kind).name}" for kind in schema["kinds"])):
        sys.modules[f"{module}.types"] = MagicMock()
    for kind, entry in schema["kinds"].items():
        checks = importlib.import_module(f"lab.kinds.{folder(kind).name}.checks").CHECKS
        found[kind] = Types(kind, entry["schema"], checks)
    uses = Counter(item for types in found.values() for item in types.classes.items())
    shared = {name: text for (name, text), number in uses.items() if number > 1}
    yield _module(ROOT / "lab" / "kinds" / "types.py", "Types of several kinds", shared, {})
    for kind, types in found.items():
        own = {name: text for name, text in types.classes.items() if name not in shared}
        common = dict.fromkeys(types.classes.keys() & shared, "lab.kinds.types")
        file = folder(kind) / "types.py"
        yield _module(file, f"{kind}: types", own, types.imported | common)


def _module(
    file: Path, subject: str, classes: dict[str, str], imported: dict[str, str]
) -> tuple[Path, str]:
    body = "\n\n".join(classes.values())
    head = (
        f'"""{subject} of the API of Istio.\n\n'
        'Written by `python -m scripts.istio_schema` from lab/resources/istio.json.\n"""\n\n'
        "from __future__ import annotations\n\n"
    )
    return file, formatted(f"{head}{_imports(body, imported)}\n\n{body}", file)


def update(source: str) -> None:
    """Writes the schema of a version or of a file of CRDs, and prints the fields that changed."""
    if Path(source).is_file():
        text = Path(source).read_text(encoding="utf-8")
        source = re.sub(r"^\D*|\.ya?ml$", "", Path(source).name)
    else:
        with urllib.request.urlopen(URL.format(source)) as answer:  # noqa: S310
            text = answer.read().decode()
    before = json.loads(SCHEMA.read_text(encoding="utf-8"))["kinds"] if SCHEMA.is_file() else {}
    after = stripped(source, text)
    SCHEMA.write_text(json.dumps(after, separators=(",", ":")) + "\n", encoding="utf-8")
    for kind, entry in after["kinds"].items():
        old = set(fields_of(before.get(kind, {}).get("schema", {})))
        new = set(fields_of(entry["schema"]))
        for sign, names in (("+", new - old), ("-", old - new)):
            # A part that is in several places counts once, where it is nearest to the top.
            nearest = sorted(names, key=lambda name: -name.count("."))
            once = {tuple(name.split(".")[-2:]): name for name in nearest}
            for name in sorted(once.values()):
                print(f"{sign} {kind} {name}")


def main() -> int:
    """Writes or compares the files; returns the exit status."""
    arguments = sys.argv[1:]
    if arguments and arguments != ["--check"]:
        update(arguments[0])
    checking = arguments == ["--check"]
    stale = 0
    for file, text in files(json.loads(SCHEMA.read_text(encoding="utf-8"))):
        if file.is_file() and file.read_text(encoding="utf-8") == text:
            continue
        if checking:
            stale = 1
            print(f"{file.relative_to(ROOT)} is stale: make istio-schema")
        else:
            file.write_text(text, encoding="utf-8")
    # A process of its own reads the new types.
    command = [sys.executable, "-m", "scripts.supported_fields"]
    page = subprocess.run([*command, "--check"] if checking else command, cwd=ROOT, check=False)  # noqa: S603
    return stale or page.returncode


if __name__ == "__main__":
    sys.exit(main())
