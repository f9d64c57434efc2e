"""Errors and warnings about Istio's resources when they are read."""

from __future__ import annotations

import pytest

from lab.manifests.load import ManifestError, parse

GATEWAY = """\
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: a}
spec:
  servers:
  - hosts: ["*"]
    port: {number: 443, name: https, protocol: HTTPS}
    tls: {credentialName: a}
"""
KEYS = """\
apiVersion: security.istio.io/v1
kind: RequestAuthentication
metadata: {name: a}
spec:
  jwtRules:
  - issuer: a
    jwks: '{"keys": [{"kty": "oct"}]}'
"""
ERRORS = """\
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: a}
spec:
  host: a
  trafficPolicy:
    outlierDetection:
      consecutiveErrors: 1
"""
OPERATOR = """\
apiVersion: install.istio.io/v1alpha1
kind: IstioOperator
spec:
  components:
    pilot:
      k8s: {}
"""


def test_no_mode_is_passthrough() -> None:
    """As in Istio, whose enumeration begins with it."""
    with pytest.raises(ManifestError, match=r"x:8: .*mode: not supported by the lab: PASSTHROUGH"):
        parse([("x", GATEWAY)])
    assert parse([("x", GATEWAY.replace("tls: {", "tls: {mode: SIMPLE, "))]).resources


def test_a_key_that_is_none_is_refused() -> None:
    with pytest.raises(ManifestError, match=r"x:7: .*jwks has no valid public key"):
        parse([("x", KEYS)])


def test_a_field_that_istio_ignores() -> None:
    (warning,) = parse([("x", ERRORS)]).warnings
    assert warning.startswith("x:8: DestinationRule a: spec.trafficPolicy.outlierDetection")
    assert "consecutive errors is deprecated and ignored" in warning


def test_a_field_of_another_world() -> None:
    with pytest.raises(ManifestError, match=r"x:6: .*k8s: not supported by the lab: istioctl's"):
        parse([("x", OPERATOR)])
