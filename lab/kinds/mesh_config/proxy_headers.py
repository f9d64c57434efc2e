"""ProxyHeaders: the headers that a proxy adds, by its own configuration."""

from __future__ import annotations

from lab.kinds.mesh_config.checks import ProxyConfig
from lab.model import Json
from lab.xds import given


def manager_fields(proxy: ProxyConfig, direction: str) -> Json:
    """Returns the fields of an HTTP connection manager about headers.

    The client's certificate is a sidecar's matter here: gateways have `gatewayTopology`.
    """
    own = proxy.proxy_headers
    name = own.server.value or ("" if direction == "outbound" else "istio-envoy")
    found = given(
        server_name=None if own.server.disabled else name or None,
        server_header_transformation="PASS_THROUGH" if own.server.disabled else None,
        generate_request_id=False if own.request_id.disabled else None,
        append_x_forwarded_port=own.x_forwarded_port.enabled or None,
    )
    if direction == "inbound":
        details = own.set_current_client_cert_details
        found |= {
            "forward_client_cert_details": own.forwarded_client_cert or "APPEND_FORWARD",
            "set_current_client_cert_details": given(
                subject=details.subject is not False,
                uri=details.uri is not False or None,
                dns=details.dns is not False or None,
                cert=details.cert or None,
                chain=details.chain or None,
            ),
        }
    return found


def router_fields(proxy: ProxyConfig) -> Json:
    """Returns the fields of the HTTP router."""
    return given(suppress_envoy_headers=proxy.proxy_headers.envoy_debug_headers.disabled or None)


def counts_attempts(proxy: ProxyConfig) -> bool:
    """Returns whether requests say how often they were sent."""
    return not proxy.proxy_headers.attempt_count.disabled
