"""The node with real pods: cables, Services, and the redirects to a proxy."""

from __future__ import annotations

import errno
import socket
import struct
from collections import Counter

import pytest

from lab.names import PROXY_MARK as MARK
from lab.net import netlink
from lab.net.namespaces import Network
from lab.net.node import Node, ServicePort, intercept, node_rules, pod_rules
from tests.support.namespaces import isolated

A, B, SERVICE = "10.244.0.10", "10.244.0.11", "10.96.0.30"
SO_MARK, SO_ORIGINAL_DST = 36, 80


def two_pods() -> tuple[Node, Network, Network]:
    node, a, b = Node(), Network(), Network()
    node.attach(a, A)
    node.attach(b, B)
    return node, a, b


def listening(pod: Network, port: int, address: str = "0.0.0.0") -> socket.socket:
    made = pod.socket()
    made.settimeout(2)
    made.bind((address, port))
    made.listen()
    return made


def call(pod: Network, host: str, port: int, *, mark: int = 0, source: str = "") -> socket.socket:
    made = pod.socket()
    made.settimeout(2)
    if mark:
        made.setsockopt(socket.SOL_SOCKET, SO_MARK, mark)
    if source:
        made.bind((source, 0))
    made.connect((host, port))
    return made


def original(connection: socket.socket) -> tuple[str, int]:
    packed = connection.getsockopt(socket.SOL_IP, SO_ORIGINAL_DST, 16)
    port, address = struct.unpack_from("!2xH4s", packed)
    return socket.inet_ntoa(address), port


def test_a_pod_is_seen_with_its_own_address() -> None:
    def sees() -> list[object]:
        _, a, b = two_pods()
        server = listening(b, 80)
        call(a, B, 80)
        return [server.accept()[1][0]]

    assert isolated(sees) == [A]


def test_only_what_listens_in_a_network_is_listed_there() -> None:
    def ports() -> list[list[int]]:
        _, a, b = two_pods()
        dual = b.inside(lambda: socket.create_server(("", 9090), family=socket.AF_INET6))
        servers = [dual, listening(b, 8080, "127.0.0.1"), listening(a, 70)]
        with listening(b, 80):
            connection = call(a, B, 80)
            before = netlink.listening(b.sockets)
        after = netlink.listening(b.sockets)
        found = [sorted(ports) for ports in (netlink.listening(a.sockets), before, after)]
        for item in (*servers, connection):
            item.close()
        return found

    assert isolated(ports) == [[70], [80, 8080, 9090], [8080, 9090]]


def test_more_listeners_than_one_answer_holds_are_listed() -> None:
    def ports() -> list[int]:
        pod = Network()
        servers = [listening(pod, number) for number in range(1024, 1624)]
        found = sorted(netlink.listening(pod.sockets))
        for server in servers:
            server.close()
        return found

    assert isolated(ports) == list(range(1024, 1624))


def test_a_service_shares_its_connections_among_its_endpoints() -> None:
    def shares() -> Counter[str]:
        node, a, b = two_pods()
        servers = {A: listening(a, 8080), B: listening(b, 8080)}
        node.serve([ServicePort(SERVICE, 80, ((A, 8080), (B, 8080)))])
        for server in servers.values():
            server.setblocking(False)
        seen: Counter[str] = Counter()
        for _ in range(200):
            call(a, SERVICE, 80)
            for host, server in servers.items():
                try:
                    server.accept()
                    seen[host] += 1
                except BlockingIOError:
                    pass
        return seen

    seen = isolated(shares)
    assert sum(seen.values()) == 200
    assert min(seen[A], seen[B]) > 50


def test_a_service_is_refused_without_endpoints_and_follows_their_change() -> None:
    def errors() -> list[int]:
        node, a, b = two_pods()
        server = listening(b, 8080)
        found = []
        for endpoints in ((), ((B, 8080),), ()):
            node.serve([ServicePort(SERVICE, 80, endpoints)])
            try:
                call(a, SERVICE, 80)
                server.accept()
                found.append(0)
            except OSError as error:
                found.append(error.errno or -1)
        return found

    assert isolated(errors) == [errno.ECONNREFUSED, 0, errno.ECONNREFUSED]


def test_a_pod_reaches_itself_by_its_service() -> None:
    def sees() -> str:
        node, a, _ = two_pods()
        server = listening(a, 8080)
        node.serve([ServicePort(SERVICE, 80, ((A, 8080),))])
        call(a, SERVICE, 80)
        return str(server.accept()[1][0])

    assert isolated(sees) != ""


@pytest.mark.parametrize(
    ("target", "mark", "source", "reaches"),
    [
        ((SERVICE, 80), 0, "", ("outbound", (SERVICE, 80))),
        ((B, 8080), 0, "", ("outbound", (B, 8080))),
        ((B, 8080), MARK, "", ("other pod", (B, 8080))),
        ((A, 8080), MARK, "", ("inbound", (A, 8080))),
        ((A, 8080), 0, "", ("application", (A, 8080))),
        (("127.0.0.1", 8080), 0, "", ("application", ("127.0.0.1", 8080))),
        ((A, 8080), MARK, "127.0.0.6", ("application", (A, 8080))),
    ],
    ids=str,
)
def test_a_pod_with_a_proxy_sends_as_istio_init_has_it(
    target: tuple[str, int], mark: int, source: str, reaches: tuple[str, tuple[str, int]]
) -> None:
    def reached() -> list[tuple[str, tuple[str, int]]]:
        _, a, b = two_pods()
        intercept(a)
        servers = {
            "outbound": listening(a, 15001),
            "inbound": listening(a, 15006),
            "application": listening(a, 8080),
            "other pod": listening(b, 8080),
        }
        made = call(a, *target, mark=mark, source=source)
        found = []
        for name, server in servers.items():
            server.setblocking(False)
            try:
                connection = server.accept()[0]
            except BlockingIOError:
                continue
            redirected = name in ("outbound", "inbound")
            to = original(connection) if redirected else made.getpeername()
            found.append((name, to))
        return found

    assert isolated(reached) == [reaches]


@pytest.mark.parametrize(("port", "reaches"), [(8080, 15006), (15090, 15090), (15021, 15021)])
def test_a_pod_with_a_proxy_receives_as_istio_init_has_it(port: int, reaches: int) -> None:
    def reached() -> list[int]:
        _, a, b = two_pods()
        intercept(b)
        servers = [listening(b, number) for number in (8080, 15006, 15090, 15021)]
        call(a, B, port)
        found = []
        for server in servers:
            server.setblocking(False)
            try:
                server.accept()
                found.append(server.getsockname()[1])
            except BlockingIOError:
                pass
        return found

    assert isolated(reached) == [reaches]


def test_the_kernel_says_which_message_it_refuses() -> None:
    def error() -> int:
        try:
            netlink.send(Network().links, [netlink.address(9999, "10.0.0.1")])
        except OSError as refused:
            return refused.errno or 0
        return 0

    assert isolated(error) == errno.ENODEV


def test_each_rule_is_a_list_of_expressions() -> None:
    """Without a kernel: the shares of endpoints are 1/3, 1/2 and the rest."""
    three = ServicePort(SERVICE, 80, ((A, 1), (B, 1), ("10.244.0.12", 1)))
    services = node_rules([three])["prerouting"][:3]
    lengths = [len(rule) for rule in services]
    assert lengths == [lengths[0], lengths[0], lengths[0] - 2]
    assert len(pod_rules()["output"]) == 6
