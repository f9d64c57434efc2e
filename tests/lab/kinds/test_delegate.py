"""Delegation between VirtualServices: which rules a root gets, and how they merge."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from lab.kinds.virtual_service import delegate
from lab.manifests.load import parse
from lab.manifests.read import ManifestError
from lab.model import Json, Snapshot
from tests.support import harness
from tests.support.harness import Mesh

ROUTE = "route: [{destination: {host: b}}]"


def virtual_service(name: str, http: str, more: str = "", namespace: str = "default") -> str:
    return (
        "apiVersion: networking.istio.io/v1\nkind: VirtualService\n"
        f"metadata: {{name: {name}, namespace: {namespace}}}\nspec: {{{more}http: [{http}]}}\n---\n"
    )


def merged(text: str) -> list[Json]:
    """The rules of the VirtualService called `root`, without what is unset."""
    snapshot = Snapshot((), (), harness.resources(text))
    (root,) = (item for item in snapshot.of("VirtualService") if item.name == "root")
    return [
        rule.http.model_dump(by_alias=True, exclude_defaults=True)
        for rule in delegate.rules(snapshot, root)
    ]


def of_root(root: str, own: str) -> list[Json]:
    """The rules of a root's rule with a delegate's."""
    rules = virtual_service("root", f"{{delegate: {{name: d}}, {root}}}", "hosts: [a], ")
    return merged(rules + virtual_service("d", f"{{{own}, {ROUTE}}}"))


@pytest.mark.parametrize(
    ("root", "own", "match"),
    [
        ("uri: {prefix: /a}", "uri: {prefix: /a/b}", "uri: {prefix: /a/b}"),
        ("uri: {prefix: /a}", "uri: {exact: /ab}", "uri: {exact: /ab}"),
        ("uri: {exact: /a}", "uri: {exact: /a}", "uri: {exact: /a}"),
        ("uri: {exact: /a}", "uri: {prefix: /a}", None),
        ("uri: {prefix: /a/b}", "uri: {prefix: /a}", None),
        ("uri: {regex: .*}", "uri: {prefix: /a}", None),
        ("uri: {prefix: /a}", "uri: {regex: .*}", None),
        ("uri: {prefix: /a}", "method: {exact: GET}", "uri: {prefix: /a}, method: {exact: GET}"),
        (
            "headers: {x: {exact: a}}",
            "headers: {z: {exact: b}}",
            "headers: {x: {exact: a}, z: {exact: b}}",
        ),
        ("headers: {x: {exact: a}}", "headers: {x: {exact: b}}", None),
        ("headers: {x: {}}", "headers: {x: {exact: b}}", None),
        ("withoutHeaders: {x: {prefix: ab}}", "withoutHeaders: {x: {prefix: a}}", None),
        ("queryParams: {q: {exact: a}}", "queryParams: {q: {exact: b}}", None),
        ("port: 80", "uri: {exact: /a}", "uri: {exact: /a}, port: 80"),
        ("port: 80", "port: 81", None),
        ("sourceNamespace: one", "uri: {exact: /a}", None),
        ("sourceLabels: {a: b}", "sourceLabels: {c: d}", "sourceLabels: {a: b, c: d}"),
        ("sourceLabels: {a: b}", "sourceLabels: {a: c}", None),
        ("gateways: [mesh, g]", "gateways: [mesh]", "gateways: [mesh]"),
        ("gateways: [g]", "gateways: [mesh]", None),
        ("ignoreUriCase: true", "uri: {exact: /a}", None),
        ("name: one", "name: two", "name: one-two"),
    ],
)
def test_a_match_is_within_the_roots(root: str, own: str, match: str | None) -> None:
    """As istiod's mergeHTTPMatchRequests."""
    found = of_root(f"match: [{{{root}}}]", f"match: [{{{own}}}]")
    wanted: Any = None if match is None else [yaml.safe_load(f"{{{match}}}")]
    assert [rule["match"] for rule in found] == ([] if wanted is None else [wanted])


def test_each_match_of_a_delegate_is_within_one_of_the_roots() -> None:
    root = "match: [{uri: {prefix: /a}}, {uri: {prefix: /b}}, {uri: {prefix: /a/x}}]"
    (rule,) = of_root(root, "match: [{uri: {exact: /b/1}}, {uri: {exact: /a/x/1}}]")
    paths = [match["uri"]["exact"] for match in rule["match"]]
    assert paths == ["/b/1", "/a/x/1", "/a/x/1"]
    assert of_root(root, "match: [{uri: {exact: /b/1}}, {uri: {exact: /c}}]") == []
    assert len(of_root(root, "timeout: 1s")[0]["match"]) == 3


def test_a_rule_takes_from_the_root_what_it_does_not_say() -> None:
    (rule,) = of_root(
        "name: r, timeout: 1s, mirror: {host: m}, headers: {request: {set: {x: '1'}}}",
        "name: d, retries: {attempts: 7}, headers: {request: {remove: [x]}}",
    )
    assert (rule["name"], rule["timeout"].total_seconds()) == ("r-d", 1)
    assert rule["mirror"] == {"host": "m"}
    assert rule["retries"] == {"attempts": 7}
    assert rule["headers"] == {"request": {"remove": ["x"]}}


def test_a_delegates_hosts_are_of_its_namespace() -> None:
    root = virtual_service("root", "{delegate: {name: d, namespace: shop}}", "hosts: [a], ")
    (rule,) = merged(root + virtual_service("d", f"{{{ROUTE}}}", namespace="shop"))
    assert rule["route"][0]["destination"]["host"] == "b.shop.svc.cluster.local"


@pytest.mark.parametrize(
    ("export", "found"),
    [
        ("", True),
        ("exportTo: [default], ", True),
        ("exportTo: ['.'], ", False),
        ("hosts: [b], ", False),
    ],
)
def test_a_delegate_is_exported_and_has_no_hosts(export: str, found: bool) -> None:
    text = virtual_service("root", "{delegate: {name: d, namespace: shop}}", "hosts: [a], ")
    text += virtual_service("d", f"{{{ROUTE}}}", export, namespace="shop")
    assert bool(merged(text)) is found
    snapshot = Snapshot((), (), harness.resources(text))
    (root, *_) = snapshot.of("VirtualService")
    said = [problem.reason for problem in delegate.problems(root, snapshot)]
    assert bool(said) is not found
    assert all(
        "no VirtualService shop/d without hosts is exported to default" in one for one in said
    )


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (
            virtual_service("a", f"{{{ROUTE}}}", "gateways: [g], "),
            "delegate virtual service must have no gateways specified",
        ),
        (
            virtual_service("a", "{delegate: {name: b}}"),
            "spec.http[0].delegate: delegate HTTP route cannot contain delegate",
        ),
        (
            virtual_service("a", f"{{name: one, delegate: {{name: b}}, {ROUTE}}}", "hosts: [a], "),
            "root HTTP route one must not specify route",
        ),
        (
            virtual_service("a", "{delegate: {name: b}, redirect: {uri: /}}", "hosts: [a], "),
            "must not specify redirect",
        ),
    ],
)
def test_what_istio_refuses(text: str, reason: str) -> None:
    with pytest.raises(ManifestError) as error:
        parse([("x", text)])
    assert reason in str(error.value)


def test_requests_take_the_way_of_the_delegate(mesh: Mesh) -> None:
    root = virtual_service(
        "root",
        "{match: [{uri: {prefix: /a}}], delegate: {name: d}, headers: {response: {set: {x: r}}}}",
        "hosts: [server], ",
    )
    mesh.apply(
        root
        + virtual_service("d", "{match: [{uri: {prefix: /a/b}}], directResponse: {status: 204}}")
    )
    reply = mesh.request("client", "http://server/a/b/c")
    assert (reply.status_code, reply.headers["x"]) == (204, "r")
    assert mesh.request("client", "http://server/a").status_code == 404
