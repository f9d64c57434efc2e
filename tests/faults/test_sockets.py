"""Clients that send too much, too little or too slowly, without a proxy in front of the service."""

from __future__ import annotations

import json
import resource
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field, replace
from http.client import HTTPException
from pathlib import Path

import httpx
import psutil
import pytest

from tests.faults.watch import well
from tests.support.client import PATH, Client, until_ready
from tests.support.metrics import samples
from tests.support.redis import RedisServer
from tests.support.service import Service, StartService
from tests.support.wait import wait
from tests.support.wire import Answer, Connection, exchange, request

MIB = 2**20


@dataclass(frozen=True)
class Target:
    """A service with an address to get and one that takes a body."""

    service: Service
    get: str
    post: str
    content_type: bytes
    body: bytes
    stored: int
    """Status of a POST of the body."""

    @property
    def url(self) -> str:
        return self.service.url

    def post_head(self, *headers: bytes) -> bytes:
        return request("POST", self.post, b"Content-Type: " + self.content_type, *headers)


FORM, JSON = b"application/x-www-form-urlencoded", b"application/json"
NAMES = ("message", "guestbook", "ui")


@pytest.fixture(scope="module")
def targets(
    start_shared_service: StartService, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, Target]]:
    """The three services as they stand in front of each other, by name."""
    folder: Path = tmp_path_factory.mktemp("sockets")
    redis = RedisServer(folder)
    redis.start()
    message = start_shared_service("message")
    guestbook = start_shared_service("guestbook", DATABASE_URL=f"sqlite:///{folder}/guestbook.db")
    ui = start_shared_service(
        "ui",
        MESSAGE_HOST=message.url,
        GUESTBOOK_HOST=guestbook.url,
        REDIS_HOST="127.0.0.1",
        REDIS_PORT=redis.port,
    )
    post = json.dumps({"username": "Ann", "message": "by hand"}).encode()
    yield {
        "message": Target(message, "/hello/x", "/misbehave", FORM, b"status=500", 400),
        "guestbook": Target(guestbook, PATH, PATH, JSON, post, 201),
        "ui": Target(ui, "/", "/greet", FORM, b"name=Ann&message=by+hand", 303),
    }
    redis.stop()


@pytest.fixture(params=NAMES)
def target(request: pytest.FixtureRequest, targets: dict[str, Target]) -> Target:
    return targets[request.param]


@pytest.fixture(params=["guestbook", "ui"])
def reader(request: pytest.FixtureRequest, targets: dict[str, Target]) -> Target:
    """A service that reads bodies."""
    return targets[request.param]


# Too much.

TAKEN = 20 * MIB
"""Bytes a client may get rid of before it is cut off, most of them in the kernels' buffers."""


@dataclass(frozen=True)
class Flood:
    head: bytes
    again: bytes
    """Sent again and again after the head."""
    total: int
    statuses: tuple[int, ...] = ()
    """The answer, where the client can still read it."""


def pipelined(target: Target) -> Flood:
    get = request("GET", target.get)
    return Flood(b"", get * (65536 // len(get)), 40 * MIB, (200, 400))


def one_header(target: Target) -> Flood:
    return Flood(request("GET", target.get)[:-2] + b"X: ", b"a" * 65536, 150 * MIB, (431,))


def many_headers(target: Target) -> Flood:
    return Flood(request("GET", target.get)[:-2], b"X-Header: value\r\n" * 4096, 29 * MIB, (431,))


def long_url(target: Target) -> Flood:
    return Flood(f"GET {target.get}?".encode(), b"a" * 65536, 100 * MIB, (431,))


def long_method(target: Target) -> Flood:
    return Flood(b"", b"A" * 65536, 100 * MIB, (400, 431))


def trailers(target: Target) -> Flood:
    body = b"%x\r\n%s\r\n0\r\n" % (len(target.body), target.body)
    head = target.post_head(b"Transfer-Encoding: chunked") + body
    return Flood(head, b"X-Trailer: value\r\n" * 4096, 29 * MIB, (target.stored, 400, 413, 431))


def chunk_extension(target: Target) -> Flood:
    head = target.post_head(b"Transfer-Encoding: chunked") + b"1;x="
    return Flood(head, b"a" * 65536, 100 * MIB, (400, 413))


def tiny_chunks(target: Target) -> Flood:
    head = target.post_head(b"Transfer-Encoding: chunked")
    return Flood(head, b"1\r\na\r\n" * 10_000, 100 * MIB, (400, 413))


def declared_body(target: Target) -> Flood:
    head = target.post_head(b"Content-Length: %d" % (300 * MIB))
    return Flood(head, b"a" * 65536, 300 * MIB, (400, 413))


def chunked_body(target: Target) -> Flood:
    head = target.post_head(b"Transfer-Encoding: chunked")
    return Flood(head, b"10000\r\n" + b"a" * 65536 + b"\r\n", 300 * MIB, (400, 413))


def body_of_a_get(target: Target) -> Flood:
    head = request("GET", target.get, b"Content-Length: %d" % (300 * MIB))
    return Flood(head, b"a" * 65536, 300 * MIB, (200, 413))


FLOODS = (
    pipelined,
    one_header,
    many_headers,
    long_url,
    long_method,
    trailers,
    chunk_extension,
    tiny_chunks,
    declared_body,
    chunked_body,
    body_of_a_get,
)


def pour(url: str, flood: Flood) -> tuple[int, Answer | None]:
    """Sends all of it and reads nothing meanwhile, as far as the service allows.

    Returns how many bytes the client got rid of, and the first answer if it can be read.
    """
    sent = 0
    with Connection(url, timeout=15) as connection:
        try:
            connection.send(flood.head)
            while sent < flood.total:
                connection.send(flood.again)
                sent += len(flood.again)
        except ConnectionError:
            pass
        except TimeoutError:
            raise AssertionError(f"{url} neither reads nor closes, after {sent} bytes") from None
        try:
            return sent, connection.answer()
        except (OSError, HTTPException):
            return sent, None


@pytest.mark.parametrize("kind", FLOODS, ids=lambda kind: kind.__name__)
def test_a_client_that_sends_too_much_is_cut_off(
    targets: dict[str, Target], kind: Callable[[Target], Flood]
) -> None:
    services = [target.service for target in targets.values()]
    logs = [len(service.lines) for service in services]
    with well(*services), ThreadPoolExecutor() as pool:
        poured = pool.map(lambda target: pour(target.url, kind(target)), targets.values())
        for target, (sent, answer) in zip(targets.values(), poured, strict=True):
            assert sent < TAKEN, target.service.url
            assert answer is None or answer.status in kind(target).statuses
    for target, start in zip(targets.values(), logs, strict=True):
        assert httpx.get(target.url + target.get, trust_env=False).status_code == 200
        check_lines(target.service, start)


def check_lines(service: Service, start: int) -> None:
    """Checks that the lines from this one on tell of no error."""
    assert [line for line in service.lines[start:] if line.startswith(("ERROR", "Trace"))] == []


@pytest.mark.parametrize(
    "kind", [pipelined, one_header, long_url, body_of_a_get], ids=lambda kind: kind.__name__
)
def test_the_management_port_cuts_such_a_client_off_too(
    targets: dict[str, Target], kind: Callable[[Target], Flood]
) -> None:
    service = targets["message"].service
    management = Target(service, "/metrics", "/metrics", FORM, b"", 405)
    with well(service):
        sent, _ = pour(service.management, kind(management))
    assert sent < TAKEN


@pytest.mark.parametrize(
    ("head", "statuses"),
    [
        (b"X: " + b"a" * 70_000 + b"\r\n", {431}),
        (b"".join(b"X-%d: %s\r\n" % (number, b"a" * 100) for number in range(700)), {431}),
        (b"X: " + b"a" * 60_000 + b"\r\n", {200}),
        (b"".join(b"X-%d: %s\r\n" % (number, b"a" * 50) for number in range(900)), {200}),
    ],
    ids=["one of 70 kB", "700", "one of 60 kB", "900"],
)
@pytest.mark.parametrize("step", [100_000, 9_000], ids=["at once", "in pieces"])
def test_a_head_has_64_kib(target: Target, head: bytes, statuses: set[int], step: int) -> None:
    data = request("GET", target.get)[:-2] + head + b"\r\n"
    with Connection(target.url) as connection:
        with suppress(ConnectionError):
            for start in range(0, len(data), step):
                connection.send(data[start : start + step])
                time.sleep(0.001)
        answer = connection.answer()
        assert answer.status in statuses
        if answer.status == 431:
            assert answer.headers["content-type"] == "application/problem+json"
            assert answer.headers["connection"] == "close"
            assert connection.ended()


def test_a_url_has_64_kib(target: Target) -> None:
    long = exchange(target.url, request("GET", f"{target.get}?q={'a' * 60_000}"))
    assert long.status == 200
    longer = exchange(target.url, request("GET", f"{target.get}?q={'a' * 70_000}"))
    assert longer.status == 431


def test_some_pipelined_requests_are_answered_in_order(targets: dict[str, Target]) -> None:
    names = [f"visitor-{number}" for number in range(60)]
    with Connection(targets["message"].url) as connection:
        connection.send(b"".join(request("GET", f"/hello/{name}") for name in names))
        for name in names:
            assert connection.answer().json()["greeting"].startswith(f"Hello {name} ")
        connection.send(request("GET", "/hello/last"))
        assert connection.answer().status == 200


def test_a_client_that_closes_its_side_gets_its_answers(target: Target) -> None:
    with Connection(target.url) as connection:
        get = request("GET", target.get)
        connection.send(get + target.post_head(b"Content-Length: %d" % len(target.body)))
        connection.send(target.body)
        connection.socket.shutdown(socket.SHUT_WR)
        assert connection.answer().status == 200
        assert connection.answer().status == target.stored
        assert connection.ended()


@pytest.mark.parametrize("size", [66_000, 300_000, 1_000_000, 20_000_000])
@pytest.mark.parametrize("declared", [True, False], ids=["declared", "chunked"])
def test_a_program_that_reads_after_it_has_sent_gets_the_413(
    reader: Target, size: int, declared: bool
) -> None:
    body = b"a" * size
    answer = httpx.post(
        reader.url + reader.post,
        content=body if declared else iter([body]),
        headers={"content-type": reader.content_type.decode()},
        trust_env=False,
    )
    assert answer.status_code == 413


@pytest.mark.parametrize("headers", [[], ["Expect:"]], ids=["with Expect", "without Expect"])
@pytest.mark.parametrize(
    "length", [[], ["Transfer-Encoding: chunked"]], ids=["declared", "chunked"]
)
def test_curl_gets_the_413_while_it_sends(
    reader: Target, tmp_path: Path, headers: list[str], length: list[str]
) -> None:
    file = tmp_path / "body"
    with file.open("wb") as body:
        body.truncate(300 * MIB)
    options = [option for header in headers + length for option in ("-H", header)]
    assert curl(reader, "-X", "POST", "-T", str(file), *options)[:2] == (0, 413)


def test_a_body_of_64_kib_is_read(reader: Target) -> None:
    padding = b"&unknown=" if reader.content_type == FORM else b""
    answer = httpx.post(
        reader.url + reader.post,
        content=reader.body + padding + b" " * (65536 - len(reader.body) - len(padding)),
        headers={"content-type": reader.content_type.decode()},
        trust_env=False,
    )
    assert answer.status_code == reader.stored


def test_more_connections_than_the_soft_limit_of_descriptors_are_served(
    start_service: StartService,
) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (128, hard))
    try:
        service = start_service("message")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    with ExitStack() as stack:
        for _ in range(200):
            stack.enter_context(Connection(service.url))
        assert httpx.get(f"{service.url}/hello/x", trust_env=False).status_code == 200


# Too little, or too slowly.

HEAD, BODY, ANSWER = (8, 14), (28, 36), (18, 28)
"""Seconds after which a connection ends: 10 for a head, 30 for a body, 20 for taking an answer."""

END = 38
"""Seconds after which a connection counts as kept."""


@dataclass
class Slow:
    """A client that sends something, then a little each second, and reads what it is sent."""

    url: str
    start: bytes
    each_second: bytes = b""
    rate: int | None = None
    """Bytes it reads a second; without it, at once."""
    received: bytearray = field(default_factory=bytearray)
    ended: float | None = None
    """Seconds after which the service ended the connection."""
    connection: Connection = field(init=False)

    @property
    def port(self) -> int:
        port: int = self.connection.socket.getsockname()[1]
        return port

    def open(self) -> None:
        self.connection = Connection(self.url, window=None if self.rate is None else 32768)
        self.connection.send(self.start)

    def step(self, seconds: float, beat: bool) -> None:
        """Does what is due after so many seconds; `beat`: a second has begun."""
        if self.ended is not None:
            return
        try:
            if beat and self.each_second:
                self.connection.send(self.each_second)
            self.read(self.rate // 10 if self.rate is not None else MIB)
        except (ConnectionError, EOFError):
            self.ended = seconds

    def read(self, size: int) -> None:
        """Reads what has come, up to this size."""
        if size == 0:
            return
        self.connection.socket.setblocking(False)
        try:
            data = self.connection.socket.recv(size)
        except BlockingIOError:
            return
        finally:
            self.connection.socket.settimeout(20)
        if not data:
            raise EOFError
        self.received += data

    def read_to_the_end(self) -> None:
        with suppress(ConnectionError, EOFError, TimeoutError):
            while data := self.connection.socket.recv(MIB):
                self.received += data

    @property
    def statuses(self) -> list[int]:
        return [int(part[:3]) for part in bytes(self.received).split(b"HTTP/1.1 ")[1:]]


@dataclass(frozen=True)
class Case:
    start: Callable[[Target], bytes]
    each_second: bytes = b""
    ends: tuple[float, float] | None = None
    """Between these seconds; None: it is kept."""
    answered: int = 0
    """Number of its requests that are answered with a 200."""


def _get(target: Target) -> bytes:
    return request("GET", target.get)


def _half_body(target: Target) -> bytes:
    return target.post_head(b"Content-Length: 1000") + b'{"'


def _half_chunk(target: Target) -> bytes:
    return target.post_head(b"Transfer-Encoding: chunked") + b'100\r\n{"'


def _half_trailer(target: Target) -> bytes:
    return target.post_head(b"Transfer-Encoding: chunked") + b"2\r\n{}\r\n0\r\nX-Trailer: "


def _half_body_of_a_get(target: Target) -> bytes:
    return request("GET", target.get, b"Content-Length: 1000") + b"half"


CASES = {
    "nothing": Case(lambda _: b"", ends=HEAD),
    "a line end": Case(lambda _: b"\r\n", ends=HEAD),
    "a line end each second": Case(lambda _: b"\r\n", b"\r\n", ends=HEAD),
    "a letter": Case(lambda _: b"G", ends=HEAD),
    "half a head": Case(lambda target: _get(target)[:-2] + b"X-Half: ", ends=HEAD),
    "a head without end": Case(lambda target: _get(target)[:-2], b"X: y\r\n", ends=HEAD),
    "half a head after a request": Case(
        lambda target: _get(target) + _get(target)[:-2], ends=HEAD, answered=1
    ),
    "half a body": Case(_half_body, ends=BODY),
    "a body without end": Case(_half_body, b" ", ends=BODY),
    "half a chunk": Case(_half_chunk, ends=BODY),
    "a chunk without end": Case(_half_chunk, b" ", ends=BODY),
    "half a trailer": Case(_half_trailer, ends=BODY),
    "half a body of a GET": Case(_half_body_of_a_get, ends=BODY, answered=1),
    "a whole request": Case(_get, answered=1),
    "two whole requests": Case(lambda target: 2 * _get(target), answered=2),
}

NO_BODY = ("nothing", "half a head", "a head without end")
"""Those that the management port, which takes no body, is tried with as well."""


@pytest.fixture(scope="module")
def full(
    start_shared_service: StartService, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Client]:
    """A guestbook with a page of 8 MB."""
    database = f"sqlite:///{tmp_path_factory.mktemp('full')}/guestbook.db"
    service = start_shared_service("guestbook", DATABASE_URL=database)
    with Client(service) as client, ThreadPoolExecutor(2) as pool:
        until_ready(client)
        list(pool.map(client.add, ["😀" * 2000] * 1000))
        yield client


@dataclass(frozen=True)
class Held:
    """Connections that clients hold, each as it was after END seconds."""

    by_case: dict[tuple[str, str], Slow]
    """By name of the target and of the case."""
    idle: list[Slow]
    """Readers that read nothing."""
    steady: Slow
    """A reader of 40 kB a second."""
    patient: Slow
    """A client whose answer takes longer than a head may."""
    unwell: AssertionError | None


@pytest.fixture(scope="module")
def held(
    start_shared_service: StartService, targets: dict[str, Target], full: Client
) -> Iterator[Held]:
    """All connections at once."""
    lazy = start_shared_service("message")
    httpx.get(f"{lazy.url}/misbehave?status=200&delay=15", trust_env=False).raise_for_status()
    patient = Slow(lazy.url, request("GET", "/hello/x"))
    management = replace(targets["message"], get="/metrics")
    page = request("GET", f"{PATH}?size=1000")
    steady = Slow(full.service.url, page, rate=40_000)
    idle = [Slow(full.service.url, page, rate=0) for _ in range(3)]
    by_case = {
        (name, case): Slow(target.url, CASES[case].start(target), CASES[case].each_second)
        for name, target in targets.items()
        for case in CASES
    }
    for case in NO_BODY:
        start, each_second = CASES[case].start(management), CASES[case].each_second
        by_case["management", case] = Slow(management.service.management, start, each_second)
    clients = [steady, *idle, patient, *by_case.values()]
    services = [full.service, *(target.service for target in targets.values())]
    unwell: AssertionError | None = None
    with ExitStack() as stack:
        try:
            with well(*services):
                for client in clients:
                    client.open()
                    stack.callback(client.connection.socket.close)
                hold(clients, idle, full.service)
        except AssertionError as error:
            unwell = error
        yield Held(by_case, idle, steady, patient, unwell)


def hold(clients: list[Slow], idle: list[Slow], service: Service) -> None:
    """Does what the clients do for END seconds, and finds out when they are cut off."""
    started = time.monotonic()
    beats = 0
    while (seconds := time.monotonic() - started) < END:
        beat = seconds > beats + 1
        beats += beat
        for client in clients:
            client.step(seconds, beat)
        if beat:
            # A client that does not read cannot see it.
            there = psutil.Process(service.pid).net_connections()
            ports = {connection.raddr.port for connection in there if connection.raddr}
            for client in idle:
                if client.ended is None and client.port not in ports:
                    client.ended = seconds
        time.sleep(0.1)
    for client in idle:
        client.read_to_the_end()


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("name", NAMES)
def test_a_client_has_its_time(
    held: Held, targets: dict[str, Target], name: str, case: str
) -> None:
    client, expected = held.by_case[name, case], CASES[case]
    answers = [200] * expected.answered
    if name == "message" and expected.ends == BODY and not answers:
        answers = [targets[name].stored]  # It refuses a body before it reads it.
    assert client.statuses[: len(answers)] == answers
    late = client.statuses[len(answers) :]
    if expected.ends is None:
        assert client.ended is None
        assert late == []
        client.connection.send(client.start)
        assert client.connection.answer().status == 200
    else:
        assert client.ended is not None
        assert expected.ends[0] <= client.ended <= expected.ends[1]
        assert late in ([[], [408]] if expected.ends == BODY else [[]])


@pytest.mark.parametrize("case", NO_BODY)
def test_a_client_of_the_management_port_has_its_time(held: Held, case: str) -> None:
    client = held.by_case["management", case]
    assert client.ended is not None
    assert HEAD[0] <= client.ended <= HEAD[1]
    assert client.statuses == []


def test_all_of_them_together_do_the_services_no_harm(held: Held) -> None:
    assert held.unwell is None


def test_a_client_that_takes_nothing_of_its_answer_is_cut_off(held: Held) -> None:
    assert held.idle
    for client in held.idle:
        assert client.ended is not None
        assert ANSWER[0] <= client.ended <= ANSWER[1]
        head, _, body = bytes(client.received).partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200 ")
        assert len(body) < 8 * 10**6


def test_a_client_that_takes_some_of_its_answer_is_not(held: Held) -> None:
    assert held.steady.ended is None
    assert len(held.steady.received) > 40_000 * END / 2


def test_a_client_that_waits_for_its_answer_gets_it(held: Held) -> None:
    assert held.patient.ended is None
    assert held.patient.statuses == [200]


# Other clients than browsers.

SETTINGS = b"HTTP2-Settings: AAEAAEAAAAIAAAAAAAMAAAAAAAQBAAAAAAUAAEAAAAYABgAA"


def with_upgrade(target: Target, protocol: bytes = b"h2c") -> bytes:
    """The request that Java's own client makes of a POST."""
    return request(
        "POST",
        target.post,
        b"Connection: Upgrade, HTTP2-Settings",
        SETTINGS,
        b"Upgrade: " + protocol,
        b"User-Agent: Java-http-client/21",
        b"Content-Type: " + target.content_type,
        body=target.body,
    )


@pytest.mark.parametrize("protocol", [b"h2c", b"HTTP/2.0", b"websocket", b"TLS/1.0, h2c"])
def test_an_offer_to_upgrade_is_ignored(target: Target, protocol: bytes) -> None:
    with Connection(target.url) as connection:
        for _ in range(2):
            connection.send(with_upgrade(target, protocol))
            answer = connection.answer("POST")
            assert answer.status == target.stored
            assert "upgrade" not in answer.headers
        connection.send(request("GET", target.get))
        assert connection.answer().status == 200


def test_an_offer_to_upgrade_is_ignored_wherever_its_pieces_end(target: Target) -> None:
    data = with_upgrade(target)
    cuts = {1, data.index(b"Upgrade: h2c") + 4, data.index(b"h2c\r\n") + 1, len(data) - 1}
    cuts |= {data.index(b"\r\n\r\n") + offset for offset in range(5)}
    with Connection(target.url) as connection:
        for cut in sorted(cuts):
            connection.send(data[:cut])
            time.sleep(0.02)  # The service reads them one by one.
            connection.send(data[cut:])
            assert connection.answer("POST").status == target.stored


def test_an_offer_to_upgrade_is_ignored_byte_by_byte(target: Target) -> None:
    with Connection(target.url) as connection:
        for byte in with_upgrade(target):
            connection.send(bytes([byte]))
        assert connection.answer("POST").status == target.stored


def test_pipelined_offers_to_upgrade_are_ignored(target: Target) -> None:
    with Connection(target.url) as connection:
        connection.send(with_upgrade(target) * 20 + request("GET", target.get))
        for _ in range(20):
            assert connection.answer("POST").status == target.stored
        assert connection.answer().status == 200


def test_the_body_of_an_offer_to_upgrade_may_be_chunked(target: Target) -> None:
    head = target.post_head(
        b"Connection: Upgrade", b"Upgrade: h2c", SETTINGS, b"Transfer-Encoding: chunked"
    )
    chunks = b"".join(b"1\r\n%c\r\n" % byte for byte in target.body) + b"0\r\n\r\n"
    for data in (head + chunks, head[:-1]):
        with Connection(target.url) as connection:
            connection.send(data)
            if data != head + chunks:
                time.sleep(0.02)
                connection.send(head[-1:] + chunks)
            assert connection.answer("POST").status == target.stored


def test_an_offer_to_upgrade_has_the_limits_of_other_requests(target: Target) -> None:
    offer = (b"Connection: Upgrade", b"Upgrade: h2c")
    big = request("GET", target.get, *offer, b"X: " + b"a" * 70_000)
    assert exchange(target.url, big).status == 431
    for host in (None, b"Host: a\r\nHost: b"):
        assert exchange(target.url, request("GET", target.get, *offer, host=host)).status == 400
    head = target.post_head(*offer, b"Content-Length: %d" % (300 * MIB))
    sent, answer = pour(target.url, Flood(head, b"a" * 65536, 300 * MIB))
    assert sent < TAKEN
    assert answer is None or answer.status in (400, 413)


def test_curl_with_http2_posts(target: Target) -> None:
    body = ["--data-binary", target.body.decode()]
    assert curl(target, "--http2", *body) == (0, target.stored, "1.1")


def curl(target: Target, *options: str) -> tuple[int, int, str]:
    """Sends to the address that takes a body; returns exit status, status and HTTP version."""
    command = ["curl", "-sS", "-o", "/dev/null", "-w", "%{http_code} %{http_version}"]
    command += ["--noproxy", "*", "--max-time", "30"]
    command += ["-H", f"Content-Type: {target.content_type.decode()}"]
    done = subprocess.run(
        [*command, *options, target.url + target.post],
        capture_output=True,
        text=True,
        check=False,
    )
    status, version = done.stdout.split()
    return done.returncode, int(status), version


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_request_has_one_host(target: Target, method: str) -> None:
    def status(*hosts: bytes, version: bytes = b"1.1") -> int:
        lines = b"".join(host + b"\r\n" for host in hosts)
        path = (target.get if method == "GET" else target.post).encode()
        head = method.encode() + b" " + path + b" HTTP/" + version + b"\r\n" + lines
        if method == "POST":
            head += b"Content-Type: " + target.content_type + b"\r\n"
            head += b"Content-Length: %d\r\n" % len(target.body)
        body = target.body if method == "POST" else b""
        return exchange(target.url, head + b"\r\n" + body, method).status

    fine = 200 if method == "GET" else target.stored
    assert status(b"Host: a") == fine
    assert status(b"hOsT: a:8080") == fine
    assert status() == 400
    assert status(b"Host: a", b"Host: b") == 400
    assert status(b"Host: a", b"host: a") == 400
    assert status(version=b"1.0") == fine


SMUGGLED = request("GET", "/smuggled")


@pytest.mark.parametrize(
    "headers",
    [
        (b"Content-Length: 5", b"Transfer-Encoding: chunked"),
        (b"Transfer-Encoding: chunked", b"Content-Length: 5"),
        (b"Content-Length: 5", b"Content-Length: 6"),
        (b"Transfer-Encoding: chunked, identity",),
        (b"Transfer-Encoding : chunked",),
        (b"Content-Length: +5",),
        (b"Content-Length: 5 5",),
        (b"X: a\r\n Content-Length: 5",),
    ],
    ids=range(8),
)
def test_a_request_of_doubtful_length_is_refused(
    targets: dict[str, Target], headers: tuple[bytes, ...]
) -> None:
    target = targets["message"]
    data = request("POST", "/behave", *headers) + b"0\r\n\r\n" + SMUGGLED
    with Connection(target.url) as connection:
        connection.send(data)
        assert connection.answer("POST").status == 400
        assert connection.ended()
    assert "/smuggled" not in target.service.text


@pytest.mark.parametrize(
    "data",
    [
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"CONNECT example.com:80 HTTP/1.1\r\nHost: example.com:80\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 100,
        b"\x00" * 100,
    ],
    ids=["HTTP/2", "CONNECT", "TLS", "zeros"],
)
def test_what_is_no_request_to_this_server_is_refused(target: Target, data: bytes) -> None:
    with Connection(target.url) as connection:
        connection.send(data)
        assert 400 <= connection.answer().status < 500
        assert connection.ended()


@pytest.mark.parametrize("length", [b"Content-Length: 1000", b"Transfer-Encoding: chunked"])
def test_a_visitor_who_leaves_in_mid_body_is_no_error_of_the_service(
    reader: Target, length: bytes
) -> None:
    def counted() -> dict[str, float]:
        found = samples(reader.service, "http_requests_total").items()
        return {
            status: value
            for (method, route, status), value in found
            if (method, route) == ("POST", reader.post) and status in ("499", "500")
        }

    before, start = counted(), len(reader.service.lines)
    with Connection(reader.url) as connection:
        connection.send(reader.post_head(length) + b"1\r\n{\r\n")
    wait(lambda: counted() != before, "the request to be counted")
    assert counted() == {**before, "499": before.get("499", 0) + 1}
    reader.service.wait_for_line(f"POST {reader.post} 499")
    check_lines(reader.service, start)
