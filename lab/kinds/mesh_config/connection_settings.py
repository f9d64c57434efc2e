"""ProxyConfig: what a proxy's own configuration says of its HTTP connections."""

from __future__ import annotations

from datetime import timedelta

from lab import durations
from lab.kinds.mesh_config.checks import HTTP10, IDLE_TIMEOUT, ConnectionSettings, ProxyConfig
from lab.model import Json
from lab.xds import duration, given

_TRUE = ("1", "t", "T", "true", "TRUE", "True")
_EDGE = ConnectionSettings(
    listenerPerConnectionBufferLimitBytes=32768,
    httpIdleTimeout=timedelta(hours=1),
    httpStreamIdleTimeout=timedelta(minutes=5),
    httpRequestTimeout=timedelta(minutes=5),
    httpRequestHeadersTimeout=timedelta(minutes=1),
    httpMaxConcurrentStreams=100,
    http2InitialStreamWindowSize=65536,
    http2InitialConnectionWindowSize=1048576,
    httpHeadersWithUnderscoresAction="HEADERS_WITH_UNDERSCORES_REJECT_REQUEST",
    httpMergeSlashes=True,
    httpPathWithEscapedSlashesAction="UNESCAPE_AND_REDIRECT",
)
"""istiod's values for a gateway with the profile EDGE."""


def _settings(proxy: ProxyConfig, *, gateway: bool) -> ConnectionSettings:
    own = proxy.connection_settings
    if own.profile != "EDGE" or not gateway:
        return own
    return _EDGE.model_copy(update={name: getattr(own, name) for name in own.model_fields_set})


def manager_fields(proxy: ProxyConfig, *, gateway: bool) -> Json:
    """Returns the fields of a proxy's HTTP connection managers that its configuration sets."""
    own = _settings(proxy, gateway=gateway)
    action = own.http_headers_with_underscores_action
    common = given(
        idle_timeout=duration(own.http_idle_timeout) or idle_timeout(proxy),
        max_connection_duration=duration(own.http_max_connection_duration),
        max_stream_duration=duration(own.http_max_stream_duration),
        headers_with_underscores_action=action and action.removeprefix("HEADERS_WITH_UNDERSCORES_"),
    )
    http2 = given(
        max_concurrent_streams=own.http_max_concurrent_streams,
        initial_stream_window_size=own.http2_initial_stream_window_size,
        initial_connection_window_size=own.http2_initial_connection_window_size,
    )
    http10 = {"accept_http_10": True} if proxy.proxy_metadata.get(HTTP10) in _TRUE else None
    return given(
        common_http_protocol_options=common or None,
        http_protocol_options=http10,
        http2_protocol_options=http2 or None,
        stream_idle_timeout=duration(own.http_stream_idle_timeout),
        request_timeout=duration(own.http_request_timeout),
        request_headers_timeout=duration(own.http_request_headers_timeout),
        drain_timeout=duration(own.http_drain_timeout),
        merge_slashes=own.http_merge_slashes,
        path_with_escaped_slashes_action=own.http_path_with_escaped_slashes_action,
    )


def buffer_limit(proxy: ProxyConfig) -> Json:
    """Returns the field of a gateway's listeners for the size of a connection's buffer."""
    size = _settings(proxy, gateway=True).listener_per_connection_buffer_limit_bytes
    return given(per_connection_buffer_limit_bytes=size)


def idle_timeout(proxy: ProxyConfig) -> str | None:
    """Returns the time after which idle connections end, TCP's too."""
    text = proxy.proxy_metadata.get(IDLE_TIMEOUT)
    try:
        return duration(durations.parse(text)) if text else None
    except ValueError:
        return None
