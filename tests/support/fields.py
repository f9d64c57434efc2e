"""Istio's schemas, and documents that have every field of a kind."""

from __future__ import annotations

import json
from typing import Any

import yaml

from tests.support.repository import ROOT

ENTRIES: dict[str, Any] = json.loads((ROOT / "lab/resources/istio.json").read_text())["kinds"]
"""Istio's kinds: versions, names and schema."""
SCHEMAS: dict[str, Any] = {kind: entry["schema"] for kind, entry in ENTRIES.items()}
FILES = sorted((ROOT / "tests/lab/kinds/fields").glob("*.yaml"))
DOCUMENTS: list[tuple[str, Any]] = [
    (file.stem, document) for file in FILES for document in yaml.safe_load_all(file.read_text())
]
"""The documents of `tests/lab/kinds/fields`, with the name of their file."""

COMPANIONS = {
    "gateway": """
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: everything, namespace: default}
spec: {hosts: ["*"], gateways: [ingress/public], http: [{route: [{destination: {host: server}}]}]}
---
""",
    "virtual_service": """
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: delegate, namespace: elsewhere}
spec: {http: [{directResponse: {status: 204}}]}
---
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: public, namespace: ingress}
spec:
  selector: {istio: ingressgateway}
  servers: [{hosts: ["*"], port: {number: 80, name: http, protocol: HTTP}}]
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: secure, namespace: default}
spec: {hosts: [a.example], ports: [{number: 443, name: tls, protocol: TLS}]}
---
""",
    "envoy_filter": """
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: public, namespace: ingress}
spec:
  selector: {istio: ingressgateway}
  servers:
  - {hosts: ["*"], port: {number: 80, name: http, protocol: HTTP}}
  - hosts: [secure.example]
    port: {number: 443, name: https, protocol: HTTPS}
    tls: {mode: SIMPLE, credentialName: certificate}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: public, namespace: default}
spec:
  hosts: ["*"]
  gateways: [ingress/public]
  http:
  - {name: direct, match: [{uri: {exact: /a}}], directResponse: {status: 200}}
  - {name: direct, match: [{uri: {exact: /b}}], route: [{destination: {host: server}}]}
  - {route: [{destination: {host: server}}]}
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: server, namespace: default}
spec: {host: server, subsets: [{name: v1, labels: {version: "1.0"}}, {name: v2}]}
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: secure, namespace: default}
spec: {hosts: [secure.example], ports: [{number: 443, name: tls, protocol: TLS}]}
---
apiVersion: networking.istio.io/v1alpha3
kind: EnvoyFilter
metadata: {name: earlier, namespace: default}
spec:
  workloadSelector: {labels: {app: server}}
  configPatches:
  - applyTo: HTTP_FILTER
    match: {context: SIDECAR_INBOUND}
    patch:
      operation: INSERT_FIRST
      value:
        name: envoy.filters.http.buffer
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.http.buffer.v3.Buffer
          max_request_bytes: 1000
---
""",
    "mesh_config": """
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: server, namespace: default}
spec:
  selector: {matchLabels: {app: client}}
  action: CUSTOM
  provider: {name: ask-http}
  rules: [{}]
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: gateway, namespace: istio-system}
spec:
  selector: {matchLabels: {istio: ingressgateway}}
  action: CUSTOM
  provider: {name: ask-grpc}
  rules: [{}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: theirs, namespace: elsewhere}
spec: {hosts: [elsewhere], http: [{directResponse: {status: 204}}]}
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: theirs, namespace: elsewhere}
spec: {host: elsewhere, trafficPolicy: {loadBalancer: {simple: RANDOM}}}
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: resolved, namespace: default}
spec: {hosts: [resolved.example], resolution: DNS, ports: [{number: 80, name: a, protocol: HTTP}]}
---
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: public, namespace: ingress}
spec:
  selector: {istio: ingressgateway}
  servers: [{hosts: ["*"], port: {number: 80, name: http, protocol: HTTP}}]
---
""",
    "destination_rule": """
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: server, namespace: default}
spec:
  hosts: [server]
  http:
  - {match: [{uri: {exact: /a}}], route: [{destination: {host: server, subset: cookie}}]}
  - {match: [{uri: {exact: /b}}], route: [{destination: {host: server, subset: address}}]}
  - {match: [{uri: {exact: /c}}], route: [{destination: {host: server, subset: query}}]}
  - {route: [{destination: {host: server}}]}
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: database, namespace: default}
spec: {hosts: [database.example], ports: [{number: 5432, name: tcp, protocol: TCP}]}
---
""",
}
"""Manifests beside which the fields of a kind show, by the name of its file."""
