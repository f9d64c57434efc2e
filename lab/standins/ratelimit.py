"""`python -m lab.standins.ratelimit`: plays envoyproxy/ratelimit, Envoy's rate limit service.

gRPC (`envoy.service.ratelimit.v3.RateLimitService`) on 8081, HTTP (`/healthcheck`, `/json`) on
8080, debugging (`/rlconfig`, `/stats`) on 6070, all on $HOST; it is configured by the variables of
the real image. Counters are in Redis ($REDIS_URL), or in memory without one, in windows of the
clock: a minute begins at second 0.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Mapping
from concurrent import futures
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import quote

import grpc
import limits
import yaml
from envoy.service.ratelimit.v3 import rls_pb2, rls_pb2_grpc
from google.protobuf import json_format
from limits.errors import StorageError
from limits.storage import MemoryStorage, Storage, storage_from_string
from limits.strategies import FixedWindowRateLimiter

from lab.standins.ratelimit_config import SECONDS, Config, ConfigError, Rule, load

log = logging.getLogger("ratelimit")

_ITEMS = {
    "second": limits.RateLimitItemPerSecond,
    "minute": limits.RateLimitItemPerMinute,
    "hour": limits.RateLimitItemPerHour,
    "day": limits.RateLimitItemPerDay,
}
_OK = rls_pb2.RateLimitResponse.OK
_OVER = rls_pb2.RateLimitResponse.OVER_LIMIT
_RELOAD_SECONDS = 1.0


class SettingError(Exception):
    """A variable with a value the stand-in can't do; the message says which."""


@dataclass(frozen=True, slots=True)
class Settings:
    host: str = "0.0.0.0"
    port: int = 8080
    grpc_port: int = 8081
    debug_port: int = 6070
    redis_url: str = ""
    config_folder: Path = Path("/srv/runtime_data/current/config")
    shadow_mode: bool = False
    log_level: str = "WARNING"


def settings(environ: Mapping[str, str]) -> Settings:
    """The settings in the variables of the real image. Raises SettingError."""

    def flag(name: str) -> bool:
        text = environ.get(name, "false").lower()
        if text not in ("true", "false", "1", "0", "t", "f"):
            raise SettingError(f'{name}={text}: must be "true" or "false"')
        return text in ("true", "1", "t")

    def port(name: str, default: int) -> int:
        text = environ.get(name) or str(default)
        if not text.isdecimal() or int(text) > 65535:
            raise SettingError(f"{name}={text}: must be a port number")
        return int(text)

    for name, wanted in (("BACKEND_TYPE", "redis"), ("REDIS_TYPE", "single")):
        if environ.get(name, wanted).lower() != wanted:
            raise SettingError(f"{name}={environ[name]}: the stand-in has {wanted} only")
    if environ.get("REDIS_SOCKET_TYPE", "tcp") != "tcp":
        raise SettingError("REDIS_SOCKET_TYPE: the stand-in has tcp only")
    for name in ("USE_STATSD", "REDIS_TLS", "REDIS_PERSECOND"):
        # The real image's default for USE_STATSD is true; without a collector nobody misses it.
        if name in environ and flag(name):
            raise SettingError(f"{name}=true: the stand-in has no such thing; set it to false")
    folder = Path(
        environ.get("RUNTIME_ROOT", "/srv/runtime_data/current"),
        environ.get("RUNTIME_SUBDIRECTORY", ""),
        environ.get("RUNTIME_APPDIRECTORY", "config"),
    )
    level = environ.get("LOG_LEVEL", "warning").upper()
    return Settings(
        host=environ.get("HOST", "0.0.0.0"),
        port=port("PORT", 8080),
        grpc_port=port("GRPC_PORT", 8081),
        debug_port=port("DEBUG_PORT", 6070),
        redis_url=_redis(environ),
        config_folder=folder,
        shadow_mode=flag("SHADOW_MODE"),
        log_level={"WARN": "WARNING", "TRACE": "DEBUG"}.get(level, level),
    )


def _redis(environ: Mapping[str, str]) -> str:
    address = environ.get("REDIS_URL", "")
    if not address:
        return ""
    address = address.removeprefix("redis://")
    password = environ.get("REDIS_AUTH", "")
    return f"redis://{':' + password + '@' if password else ''}{address}"


@dataclass(slots=True)
class Limiter:
    """Decides on requests by the configuration of the moment."""

    storage: Storage
    config: Config
    shadow_mode: bool = False
    stats: Counter[str] = field(default_factory=Counter)
    _strategy: FixedWindowRateLimiter = field(init=False)

    def __post_init__(self) -> None:
        self._strategy = FixedWindowRateLimiter(self.storage)

    def decide(self, request: Any, now: float) -> Any:
        """The response to a RateLimitRequest. Raises StorageError when the counters are away."""
        if not request.domain:
            raise ValueError("rate limit domain must not be empty")
        if not request.descriptors:
            raise ValueError("rate limit descriptor list must not be empty")
        response = rls_pb2.RateLimitResponse(overall_code=_OK)
        for descriptor in request.descriptors:
            status = response.statuses.add(code=_OK)
            entries = [(entry.key, entry.value) for entry in descriptor.entries]
            rule = self.config.find(request.domain, entries)
            if rule is None or rule.limit.unlimited or rule.limit.unit is None:
                continue
            hits = descriptor.hits_addend.value if descriptor.HasField("hits_addend") else 0
            hits = hits or request.hits_addend or 1
            self._count(status, rule, (request.domain, *sum(entries, ())), hits, now)
            if status.code == _OVER:
                response.overall_code = _OVER
        if response.overall_code == _OVER and self.shadow_mode:
            response.overall_code = _OK
        return response

    def _count(self, status: Any, rule: Rule, key: tuple[str, ...], hits: int, now: float) -> None:
        unit = rule.limit.unit
        assert unit is not None  # noqa: S101 - `decide` has looked
        seconds = SECONDS[unit]
        window = int(now) // seconds * seconds
        item = _ITEMS[unit](rule.limit.requests_per_unit)
        identifiers = (*(quote(part, safe="") for part in key), str(window))
        within = self._strategy.hit(item, *identifiers, cost=hits)
        remaining = self._strategy.get_window_stats(item, *identifiers).remaining
        status.current_limit.requests_per_unit = rule.limit.requests_per_unit
        status.current_limit.unit = rls_pb2.RateLimitResponse.RateLimit.Unit.Value(unit.upper())
        status.current_limit.name = rule.limit.name
        status.limit_remaining = remaining
        status.duration_until_reset.seconds = window + seconds - int(now)
        self.stats[f"{rule.name}.total_hits"] += hits
        if within:
            self.stats[f"{rule.name}.within_limit"] += hits
            return
        self.stats[f"{rule.name}.over_limit"] += hits
        if rule.shadow_mode:
            self.stats[f"{rule.name}.shadow_mode"] += hits
            return
        status.code = _OVER


class Service(rls_pb2_grpc.RateLimitServiceServicer):  # type: ignore[misc]
    def __init__(self, limiter: Limiter) -> None:
        self.limiter = limiter

    def ShouldRateLimit(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802
        """The method that Envoy calls for each request with descriptors."""
        try:
            response = self.limiter.decide(request, time.time())
        except (StorageError, ValueError) as error:
            log.error("%s", error)
            context.abort(grpc.StatusCode.UNKNOWN, str(error))
        if log.isEnabledFor(logging.DEBUG):
            log.debug("%s -> %s", _line(request), _line(response))
        return response


def _line(message: Any) -> str:
    return json.dumps(json_format.MessageToDict(message, preserving_proto_field_name=True))


def _handler(pages: Mapping[tuple[str, str], Any]) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        timeout = 30

        def _answer(self) -> None:
            page = pages.get((self.command, self.path.partition("?")[0]))
            size = int(self.headers.get("content-length") or 0)
            if size > 1 << 20:
                status, body = 413, "the body is too large\n"
            else:
                content = self.rfile.read(size)
                status, body = page(content) if page else (404, "404 page not found\n")
            data = body.encode()
            self.send_response(status)
            self.send_header("content-length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_POST = _answer  # noqa: N815

        def log_message(self, format: str, *args: Any) -> None:
            log.debug(format, *args)

    return Handler


def _json(limiter: Limiter, content: bytes) -> tuple[int, str]:
    try:
        request = json_format.Parse(content, rls_pb2.RateLimitRequest())
        response = limiter.decide(request, time.time())
    except (json_format.ParseError, UnicodeDecodeError) as error:
        return 400, f"{error}\n"
    except (StorageError, ValueError) as error:
        return 500, f"{error}\n"
    text = json_format.MessageToJson(response, indent=None)
    return (429 if response.overall_code == _OVER else 200), text


def serve(chosen: Settings, limiter: Limiter) -> tuple[grpc.Server, list[ThreadingHTTPServer]]:
    """Start all servers. Raises OSError or RuntimeError when a port is taken."""
    server = grpc.server(
        futures.ThreadPoolExecutor(max_workers=8), options=[("grpc.so_reuseport", 0)]
    )
    rls_pb2_grpc.add_RateLimitServiceServicer_to_server(Service(limiter), server)
    server.add_insecure_port(f"{chosen.host}:{chosen.grpc_port}")
    main_pages = {
        ("GET", "/healthcheck"): lambda _: (200, "OK"),
        ("POST", "/json"): lambda content: _json(limiter, content),
    }
    debug_pages = {
        ("GET", "/rlconfig"): lambda _: (200, _dump(limiter.config)),
        ("GET", "/stats"): lambda _: (200, _stats(limiter)),
    }
    https = [
        ThreadingHTTPServer((chosen.host, port), _handler(pages))
        for port, pages in ((chosen.port, main_pages), (chosen.debug_port, debug_pages))
    ]
    for one in https:
        threading.Thread(target=one.serve_forever, daemon=True).start()
    server.start()
    return server, https


def _dump(config: Config) -> str:
    documents = [domain.model_dump(exclude_defaults=True, mode="json") for domain in config.domains]
    return yaml.safe_dump_all(documents, sort_keys=False)


def _stats(limiter: Limiter) -> str:
    prefix = "ratelimit.service.rate_limit."
    return "".join(f"{prefix}{name}: {n}\n" for name, n in sorted(limiter.stats.items()))


def _watch(folder: Path, loaded: object, limiter: Limiter, stopped: threading.Event) -> None:
    """Take over a changed configuration; keep the old one when the new one is wrong."""
    while not stopped.wait(_RELOAD_SECONDS):
        state = _state(folder)
        if state != loaded:
            try:
                limiter.config = load(folder)
            except ConfigError as error:
                log.error("error loading new configuration from runtime: %s", error)
            else:
                log.warning("loaded the changed configuration from %s", folder)
        loaded = state


def _state(folder: Path) -> object:
    found = []
    for file in sorted(folder.glob("*.yaml")):
        try:
            stat = file.stat()
        except OSError:
            continue
        found.append((file.name, stat.st_mtime_ns, stat.st_ino, stat.st_size))
    return found


def _counters(url: str) -> Storage:
    if not url:
        log.warning("REDIS_URL is not set: the counters are in memory")
        return MemoryStorage()
    storage = storage_from_string(
        url, wrap_exceptions=True, socket_timeout=5.0, socket_connect_timeout=5.0
    )
    if not isinstance(storage, Storage) or not storage.check():
        raise SettingError(f"no Redis answers at REDIS_URL={os.environ.get('REDIS_URL')}")
    return storage


def main() -> None:
    """Serve until SIGTERM."""
    stopped = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopped.set())
    try:
        chosen = settings(os.environ)
        logging.basicConfig(
            stream=sys.stdout,
            level=chosen.log_level,
            format="%(asctime)s %(levelname)s %(message)s",
        )
        loaded = _state(chosen.config_folder)
        limiter = Limiter(
            _counters(chosen.redis_url), load(chosen.config_folder), chosen.shadow_mode
        )
        server, https = serve(chosen, limiter)
    except (SettingError, ConfigError, OSError, RuntimeError, ValueError) as error:
        sys.exit(f"ratelimit: {error}")
    watcher = threading.Thread(target=_watch, args=(chosen.config_folder, loaded, limiter, stopped))
    watcher.start()
    where = f"{chosen.host}:{chosen.grpc_port}"
    sys.stdout.write(f"Stand-in for the rate limit service, gRPC on {where}\n")
    sys.stdout.flush()
    stopped.wait()
    server.stop(grace=2).wait()
    for one in https:
        one.shutdown()
    watcher.join()


if __name__ == "__main__":
    main()
