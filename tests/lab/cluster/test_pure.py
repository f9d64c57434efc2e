"""Small rules of the pods: environment, paths, commands, selectors, logs."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from lab.cluster import container_commands, environment, logs, programs, selector, volumes
from lab.cluster.events import Event, Events
from lab.kinds.kubernetes import service
from lab.kinds.kubernetes.core import ServicePort as ManifestPort
from lab.kinds.kubernetes.pod_spec import VolumeMount
from lab.model import Pod, Service, ServicePort
from lab.resources.resource import Source

SERVICES = (
    Service(
        "default",
        "message",
        (ServicePort("http", 80, "http", "HTTP"),),
        {"app": "message"},
        "127.79.0.2",
        Source("x", 1),
    ),
    Service(
        "default",
        "mysql",
        (ServicePort("tcp-mysql", 3306, 3306, "TCP"),),
        {"app": "mysql"},
        "127.79.0.3",
        Source("x", 1),
    ),
)


def pod(name: str, proxy: str = "sidecar", **labels: str) -> Pod:
    return Pod(
        "default",
        name,
        labels,
        {},
        "default",
        f"127.77.0.{len(name)}",
        f"127.78.0.{len(name)}",
        {"http": 8080},
        True,
        proxy,  # type: ignore[arg-type]
    )


CLIENT = pod("curl")
OUTSIDER = pod("stranger", "none")
SERVER = pod("message-1", app="message")


def run(argv: str, who: Pod = CLIENT, *, proxy: bool = False) -> str:
    caller = container_commands.Caller(who, proxy, SERVICES, (CLIENT, OUTSIDER, SERVER))
    return " ".join(container_commands.executed(argv.split(), caller, {}))


@pytest.mark.parametrize(
    ("who", "proxy", "argv", "expected"),
    [
        # Captured: HTTP goes to the proxy by name, TCP to the sidecar's listener.
        (CLIENT, False, "curl http://message/x", "curl http://message/x"),
        (CLIENT, False, "curl dict://mysql:3306/", "--connect-to mysql:3306:127.78.0.4:3306"),
        (CLIENT, False, "curl localhost:9", "--connect-to localhost:9:127.78.0.4:9"),
        # Not captured: kube-proxy's choice of a ready endpoint.
        (OUTSIDER, False, "curl -s message", "--connect-to message:80:127.77.0.9:8080"),
        (OUTSIDER, False, "curl http://message.default/", "message.default:80:127.77.0.9:8080"),
        (OUTSIDER, False, "curl http://mysql:3306", "mysql:3306:127.77.0.8:1"),
        (OUTSIDER, False, "curl http://elsewhere.example/", "curl http://elsewhere.example/"),
        (CLIENT, True, "curl -s localhost:15000/x", "localhost:15000:127.78.0.4:15000"),
        (CLIENT, True, "curl http://message/", "--connect-to message:80:127.77.0.9:8080"),
        # A value of an option is no URL.
        (OUTSIDER, False, "curl -sH message -o mysql -XPOST http://1.2.3.4/", "curl -sH message"),
        (
            CLIENT,
            False,
            "curl --resolve a.com:8080:1.2.3.4 http://a.com:8080",
            "--header x-envoy-original-dst-host: 1.2.3.4:8080",
        ),
        (
            CLIENT,
            False,
            "curl --resolve a.com:8443:1.2.3.4 https://a.com:8443",
            "--proxy-header x-envoy-original-dst-host: 1.2.3.4:8443",
        ),
        (
            CLIENT,
            True,
            "openssl s_client -connect message.default:80",
            "-connect 127.77.0.9:8080 -servername message.default",
        ),
        (
            CLIENT,
            True,
            "pilot-agent request GET stats?filter=x",
            "--request GET http://127.78.0.4:15000/stats?filter=x",
        ),
    ],
)
def test_commands_reach_what_they_name(who: Pod, proxy: bool, argv: str, expected: str) -> None:
    assert expected in run(argv, who, proxy=proxy)


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("MESSAGE_HOST", "http://message", "http://127.79.0.2"),
        ("URL", "http://message:80/a?b", "http://127.79.0.2:80/a?b"),
        (
            "DATABASE_URL",
            "mysql+pymysql://u:p@mysql:3306/db",
            "mysql+pymysql://u:p@127.79.0.3:3306/db",
        ),
        ("MYSQL_HOST", "mysql", "127.79.0.3"),
        ("ADDR", "mysql:3306", "127.79.0.3:3306"),
        ("NAME", "mysql", "mysql"),
        ("OTHER_HOST", "http://elsewhere", "http://elsewhere"),
    ],
)
def test_host_names_lead_to_services(name: str, value: str, expected: str) -> None:
    def resolve(host: str, port: int | None) -> tuple[str, int | None] | None:
        found = service.named(host, "default", SERVICES)
        return None if found is None else (str(found.cluster_ip), port)

    assert environment.redirect(name, value, resolve) == expected


@pytest.mark.parametrize(
    ("host", "found"),
    [
        ("message", True),
        ("message.default", True),
        ("message.default.svc", True),
        ("message.default.svc.cluster.local", True),
        ("message.other", False),
        ("message.default.example.com", False),
    ],
)
def test_cluster_names(host: str, found: bool) -> None:
    assert (service.named(host, "default", SERVICES) is not None) == found
    assert service.named("message", "other", SERVICES) is None


@pytest.mark.parametrize(
    ("name", "app", "port", "expected"),
    [
        ("http", None, 80, "HTTP"),
        ("http-web", None, 80, "HTTP"),
        ("http2", None, 80, "HTTP2"),
        ("grpc", None, 8081, "GRPC"),
        ("grpc-web-x", None, 80, "GRPC-WEB"),
        ("tcp-mysql", None, 3306, "TCP"),
        ("web", None, 80, "AUTO"),
        ("web", "http", 80, "HTTP"),
        ("web", "kubernetes.io/ws", 80, "HTTP"),
        ("http", "kubernetes.io/wss", 443, "HTTPS"),
        ("", None, 3306, "TCP"),
    ],
)
def test_protocol_selection(name: str, app: str | None, port: int, expected: str) -> None:
    spec = {"name": name or "x", "port": port} | ({"appProtocol": app} if app else {})
    manifest = ManifestPort.model_validate(spec)
    if not name:
        manifest = manifest.model_copy(update={"name": ""})
    assert service.protocol(manifest) == expected


def test_paths_of_mounts_are_moved() -> None:
    mounts = [
        VolumeMount(name="a", mountPath="/data/config"),
        VolumeMount(name="b", mountPath="/run"),
    ]
    root = Path("/r")
    for text, expected in [
        ("/data/config", "/r/data/config"),
        ("--file=/data/config/x.yaml", "--file=/r/data/config/x.yaml"),
        ("/data", "/r/data"),
        ("/data/other", "/data/other"),
        ("/running", "/running"),
        ("http://host/run", "http://host/run"),
        ("a:/run/b", "a:/r/run/b"),
    ]:
        assert volumes.rewrite(text, mounts, root) == expected, text


@pytest.mark.parametrize(
    ("text", "labels", "expected"),
    [
        ("app=ui", {"app": "ui"}, True),
        ("app==ui,version!=2", {"app": "ui", "version": "1"}, True),
        ("app!=ui", {}, True),
        ("app in (a, ui),!x", {"app": "ui"}, True),
        ("app notin (ui)", {"app": "ui"}, False),
        ("x", {"x": ""}, True),
        ("", {}, True),
    ],
)
def test_selectors(text: str, labels: dict[str, str], expected: bool) -> None:
    assert selector.parse(text)(labels) is expected


def test_a_selector_that_is_none() -> None:
    with pytest.raises(ValueError, match="not a label selector"):
        selector.parse("a b c")


def test_images_are_known_by_name() -> None:
    for image in (
        "redis",
        "redis:8",
        "docker.io/library/redis:8@sha256:1",
        "localhost:5000/redis",
    ):
        assert programs.split(image)[0] == "redis"
    assert programs.split("europe.pkg.dev/p/guestbook/ui:v2") == ("guestbook/ui", "v2")
    with pytest.raises(programs.UnknownImageError, match='no program for the image "nginx"'):
        programs.split("nginx")
    _, env = programs.program("localhost/guestbook/ui:v2", None, None)
    assert env == {"UI_BACKGROUND": "goldenrod", "DEMO_VERSION": "2.0"}
    argv, _ = programs.program("localhost/guestbook/ui:v1", ["python", "-c", "x"], ["y"])
    assert argv == [programs.PYTHON, "-c", "x", "y"]


def test_logs_are_stamped_cut_and_rotated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "c.log"
    log = logs.ContainerLog(path)
    log.write(b"one\ntw")
    log.write(b"o\n")
    assert [line.partition(b" ")[2] for line in logs.lines(path)] == [b"one", b"two"]
    assert len(logs.lines(path, tail=1)) == 1
    assert logs.lines(path, tail=0) == []
    now = datetime.now(UTC)
    assert len(logs.lines(path, since=now - timedelta(hours=1))) == 2
    assert logs.lines(path, since=now + timedelta(minutes=1)) == []
    monkeypatch.setattr(logs, "MAX_BYTES", 100)
    log.write(b"three" * 20 + b"\n")
    log.write(b"four")
    log.close()
    assert logs.previous(path).exists()
    assert [line.partition(b" ")[2] for line in logs.lines(path)][-1] == b"four"


def test_an_event_wakes_those_who_wait_for_one() -> None:
    async def scene() -> list[int]:
        events = Events()
        waiting = asyncio.create_task(events.wait_for_change(0, 60))
        await asyncio.sleep(0)
        event = Event("Pod", "default", "a", "Normal", "Started", "container a")
        events.add(event)
        await asyncio.wait_for(waiting, 5)
        seen = [events.revision]
        events.add(replace(event))  # The same again, which counts up.
        await asyncio.wait_for(events.wait_for_change(1, 60), 5)
        return [*seen, events.revision]

    assert asyncio.run(scene()) == [1, 2]
