"""`python -m lab.standins.ratelimit`: plays envoyproxy/ratelimit, Envoy's rate limit service.

gRPC (`envoy.service.ratelimit.v3.RateLimitService`) on 8081, HTTP (`/healthcheck`, `/json`) on
8080, debugging (`/rlconfig`, `/stats`) on 6070, all on $HOST; it is configured by the variables of
the real image. Counters are in Redis ($REDIS_URL), or in memory without one, in windows of the
clock: a minute begins at second 0.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from concurrent import futures
from dataclasses import dataclass, field
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
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from lab.standins import say
from lab.standins.http import read_body, serving
from lab.standins.ratelimit_config import Config, ConfigError, Rule, files, find, load

log = logging.getLogger("ratelimit")

_OK = rls_pb2.RateLimitResponse.OK
_OVER = rls_pb2.RateLimitResponse.OVER_LIMIT
_RELOAD_SECONDS = 1.0
MAX_BODY = 1 << 20


class SettingError(Exception):
    """A variable has a value that the stand-in can't do; the message names it."""


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
    """Returns the settings in the variables of the real image. Raises SettingError."""

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
        # The real image's default for USE_STATSD is true; without a collector it has no use.
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
    """Decides on requests by the configuration that was loaded last."""

    storage: Storage
    config: Config
    shadow_mode: bool = False
    stats: Counter[str] = field(default_factory=Counter)
    _strategy: FixedWindowRateLimiter = field(init=False)

    def __post_init__(self) -> None:
        self._strategy = FixedWindowRateLimiter(self.storage)

    def decide(self, request: Any, now: float) -> Any:
        """Returns the response to a RateLimitRequest.

        Raises StorageError when the counters can't be reached.
        """
        if not request.domain:
            raise ValueError("rate limit domain must not be empty")
        if not request.descriptors:
            raise ValueError("rate limit descriptor list must not be empty")
        response = rls_pb2.RateLimitResponse(overall_code=_OK)
        for descriptor in request.descriptors:
            status = response.statuses.add(code=_OK)
            entries = [(entry.key, entry.value) for entry in descriptor.entries]
            rule = find(self.config, request.domain, entries)
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
        unit = str(rule.limit.unit)
        item = limits.parse(f"{rule.limit.requests_per_unit}/{unit}")
        seconds = item.get_expiry()
        window = int(now) // seconds * seconds
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
    """The gRPC service."""

    def __init__(self, limiter: Limiter) -> None:
        self.limiter = limiter

    def ShouldRateLimit(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802
        """Answers Envoy, which asks for each request with descriptors."""
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


def _json(limiter: Limiter, content: bytes) -> tuple[str, int]:
    """Returns the response to a RateLimitRequest in JSON, and the HTTP status."""
    try:
        request = json_format.Parse(content, rls_pb2.RateLimitRequest())
        response = limiter.decide(request, time.time())
    except (json_format.ParseError, UnicodeDecodeError) as error:
        return f"{error}\n", 400
    except (StorageError, ValueError) as error:
        return f"{error}\n", 500
    text = json_format.MessageToJson(response, indent=None)
    return text, (429 if response.overall_code == _OVER else 200)


def pages(limiter: Limiter) -> tuple[Starlette, Starlette]:
    """Returns the applications on the HTTP port and on the debug port."""

    async def healthcheck(_request: Request) -> Response:
        return PlainTextResponse("OK")

    async def decide(request: Request) -> Response:
        body = await read_body(request, MAX_BODY)
        return PlainTextResponse(*await run_in_threadpool(_json, limiter, body))

    async def configuration(_request: Request) -> Response:
        return PlainTextResponse(_dump(limiter.config))

    async def statistics(_request: Request) -> Response:
        return PlainTextResponse(_stats(limiter))

    main = [Route("/healthcheck", healthcheck), Route("/json", decide, methods=["POST"])]
    debug = [Route("/rlconfig", configuration), Route("/stats", statistics)]
    return Starlette(routes=main), Starlette(routes=debug)


@contextlib.contextmanager
def serve(chosen: Settings, limiter: Limiter) -> Iterator[None]:
    """Runs all servers. Raises OSError or RuntimeError when a port is taken."""
    server = grpc.server(
        futures.ThreadPoolExecutor(max_workers=8), options=[("grpc.so_reuseport", 0)]
    )
    rls_pb2_grpc.add_RateLimitServiceServicer_to_server(Service(limiter), server)
    server.add_insecure_port(f"{chosen.host}:{chosen.grpc_port}")
    main_pages, debug_pages = pages(limiter)
    with (
        serving(main_pages, chosen.host, chosen.port),
        serving(debug_pages, chosen.host, chosen.debug_port),
    ):
        server.start()
        yield
        server.stop(grace=2).wait()


def _dump(config: Config) -> str:
    documents = [
        domain.model_dump(exclude_defaults=True, mode="json") for domain in config.values()
    ]
    return yaml.safe_dump_all(documents, sort_keys=False)


def _stats(limiter: Limiter) -> str:
    prefix = "ratelimit.service.rate_limit."
    return "".join(f"{prefix}{name}: {n}\n" for name, n in sorted(limiter.stats.items()))


def _reload(folder: Path, loaded: object, limiter: Limiter) -> object:
    """Takes over a changed configuration, unless it is wrong; returns its state on disk."""
    state = _state(folder)
    if state != loaded:
        try:
            limiter.config = load(folder)
        except ConfigError as error:
            log.error("error loading new configuration from runtime: %s", error)
        else:
            log.warning("loaded the changed configuration from %s", folder)
    return state


def _state(folder: Path) -> object:
    """Returns a value that differs when a file does."""
    with contextlib.suppress(FileNotFoundError):
        return [(file, (found := file.stat()).st_mtime_ns, found.st_ino) for file in files(folder)]
    return None


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
    """Serves until SIGTERM."""
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
        config = load(chosen.config_folder)
        limiter = Limiter(_counters(chosen.redis_url), config, chosen.shadow_mode)
        with serve(chosen, limiter):
            say(f"Stand-in for the rate limit service, gRPC on {chosen.host}:{chosen.grpc_port}")
            while not stopped.wait(_RELOAD_SECONDS):
                loaded = _reload(chosen.config_folder, loaded, limiter)
    except (SettingError, ConfigError, OSError, RuntimeError, ValueError) as error:
        sys.exit(f"ratelimit: {error}")


if __name__ == "__main__":
    main()
