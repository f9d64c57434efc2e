"""Patches without a lab; what is expected is what Kubernetes' API server 1.34 answered."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from lab.cluster.patches import PatchError, patched

CONTAINERS: list[dict[str, Any]] = [
    {
        "name": "c1",
        "image": "i1",
        "args": ["x", "y"],
        "env": [{"name": "A", "value": "1"}, {"name": "B", "value": "2"}],
        "ports": [{"containerPort": 80, "name": "http"}, {"containerPort": 90, "name": "m"}],
        "volumeMounts": [{"name": "v", "mountPath": "/v"}],
    },
    {"name": "c2", "image": "i2"},
]
POD: dict[str, Any] = {
    "metadata": {"name": "web", "labels": {"a": "b"}},
    "spec": {
        "containers": CONTAINERS,
        "volumes": [{"name": "v", "emptyDir": {}}],
        "tolerations": [{"key": "k"}],
        "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1}},
    },
}
SERVICE = {"spec": {"ports": [{"name": "http", "port": 80}, {"name": "m", "port": 90}]}}


def after(patch: Any, type_: str = "strategic", kind: str = "Pod") -> Any:
    """The object after a patch, which leaves the object and the patch as they were."""
    before = copy.deepcopy(SERVICE if kind == "Service" else POD)
    kept = copy.deepcopy((before, patch))
    result = patched(type_, kind, before, patch)
    assert (before, patch) == kept
    return result


def containers(*patch: Any) -> Any:
    return after({"spec": {"containers": list(patch)}})["spec"]["containers"]


def names(items: Any, field: str = "name") -> list[Any]:
    return [item[field] for item in items]


def test_a_strategic_patch_merges_lists_by_their_keys() -> None:
    first, second = containers({"name": "c1", "env": [{"name": "B", "value": "3"}], "args": ["z"]})
    assert second == CONTAINERS[1]
    assert first == {
        **CONTAINERS[0],
        "args": ["z"],
        "env": [{"name": "A", "value": "1"}, {"name": "B", "value": "3"}],
    }
    (first, _) = containers({"name": "c1", "ports": [{"containerPort": 70}, {"containerPort": 90}]})
    assert names(first["ports"], "containerPort") == [70, 80, 90]
    ports = after({"spec": {"ports": [{"port": 90, "name": "n"}]}}, kind="Service")["spec"]["ports"]
    assert ports == [{"name": "http", "port": 80}, {"name": "n", "port": 90}]
    assert after({"spec": {"tolerations": [{"key": "z"}]}})["spec"]["tolerations"] == [{"key": "z"}]


@pytest.mark.parametrize(
    ("patch", "order"),
    [
        ("c3", "c3 c1 c2"),
        ("c2 c0 c1", "c2 c0 c1"),
        ("c2 c3", "c1 c2 c3"),
        ("c3 c2", "c3 c1 c2"),
        ("c1 c3", "c1 c3 c2"),
    ],
)
def test_the_order_of_a_merged_list(patch: str, order: str) -> None:
    merged = containers(*({"name": name, "image": "n"} for name in patch.split()))
    assert names(merged) == order.split()


def test_directives_of_a_strategic_patch() -> None:
    assert names(containers({"name": "c1", "$patch": "delete"})) == ["c2"]
    replaced = containers({"$patch": "replace"}, {"name": "only", "image": "o"})
    assert replaced == [{"name": "only", "image": "o"}]
    assert after({"metadata": {"labels": {"$patch": "replace", "x": "y"}}})["metadata"] == {
        "name": "web",
        "labels": {"x": "y"},
    }
    recreate = {"$retainKeys": ["type"], "type": "Recreate"}
    assert after({"spec": {"strategy": recreate}})["spec"]["strategy"] == {"type": "Recreate"}
    volume = {"name": "v", "$retainKeys": ["name", "configMap"], "configMap": {"name": "c"}}
    assert after({"spec": {"volumes": [volume]}})["spec"]["volumes"] == [
        {"name": "v", "configMap": {"name": "c"}}
    ]
    made = after({"spec": {"volumes": None, "selector": {"a": "b", "c": None}}})["spec"]
    assert "volumes" not in made
    assert made["selector"] == {"a": "b"}


@pytest.mark.parametrize(
    ("target", "patch", "result"),
    [
        ({"a": "b"}, {"a": "c"}, {"a": "c"}),
        ({"a": "b"}, {"b": "c"}, {"a": "b", "b": "c"}),
        ({"a": "b"}, {"a": None}, {}),
        ({"a": "b", "b": "c"}, {"a": None}, {"b": "c"}),
        ({"a": ["b"]}, {"a": "c"}, {"a": "c"}),
        ({"a": "c"}, {"a": ["b"]}, {"a": ["b"]}),
        ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
        ({"a": [{"b": "c"}]}, {"a": [1]}, {"a": [1]}),
        ({"e": None}, {"a": 1}, {"e": None, "a": 1}),
        ({"a": "foo"}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}),
    ],
)
def test_the_examples_of_rfc_7396(target: Any, patch: Any, result: Any) -> None:
    assert patched("merge", "VirtualService", target, patch) == result


@pytest.mark.parametrize(
    ("target", "patch", "result"),
    [
        ({"foo": "bar"}, [("add", "/baz", "qux")], {"baz": "qux", "foo": "bar"}),
        ({"foo": ["a", "c"]}, [("add", "/foo/1", "b")], {"foo": ["a", "b", "c"]}),
        ({"foo": ["a"]}, [("add", "/foo/-", ["b"])], {"foo": ["a", ["b"]]}),
        ({"foo": ["a", "b"]}, [("remove", "/foo/1")], {"foo": ["a"]}),
        ({"foo": ["a", "b"]}, [("remove", "/foo/-1")], {"foo": ["a"]}),
        ({"baz": "q"}, [("replace", "/baz", "boo")], {"baz": "boo"}),
        ({"foo": {"a": 1}, "q": {}}, [("move", "/q/b", "/foo/a")], {"foo": {}, "q": {"b": 1}}),
        ({"foo": ["a", "b", "c"]}, [("move", "/foo/2", "/foo/0")], {"foo": ["b", "c", "a"]}),
        ({"foo": {"a": [1]}}, [("copy", "/b", "/foo/a")], {"foo": {"a": [1]}, "b": [1]}),
        ({"a": {"b/c": 1}}, [("test", "/a/b~1c", 1), ("remove", "/a/b~1c")], {"a": {}}),
        ({"~1": 10}, [("test", "/~01", 10)], {"~1": 10}),
        ({"a": {}}, [("replace", "/a/replicas", 3)], {"a": {"replicas": 3}}),
    ],
)
def test_operations_of_a_json_patch(target: Any, patch: Any, result: Any) -> None:
    steps = [
        {"op": op, "path": path, "from" if op in ("move", "copy") else "value": rest}
        for op, path, rest in ((*step, None)[:3] for step in patch)
    ]
    assert patched("json", "VirtualService", target, steps) == result


@pytest.mark.parametrize(
    ("type_", "patch", "reason"),
    [
        ("strategic", {"spec": {"containers": [{"image": "x"}]}}, "declared merge key: name"),
        ("strategic", {"metadata": {"$patch": "bad"}}, "unknown patch type: bad"),
        ("strategic", {"spec": {"strategy": {"$retainKeys": ["a"], "b": 1}}}, "retainKeys"),
        ("strategic", {"spec": {"$deleteFromPrimitiveList/x": ["a"]}}, "deleteFromPrimitiveList/x"),
        ("strategic", [1], "error decoding patch"),
        ("merge", [1], "error decoding patch"),
        ("json", {"a": 1}, "error decoding patch"),
        ("json", [{"op": "remove", "path": "/spec/containers/7"}], "invalid index: 7"),
        ("json", [{"op": "remove", "path": "/spec/none"}], "nonexistent key: none"),
        ("json", [{"op": "add", "path": "/spec/a/b", "value": 1}], 'missing path: "/spec/a/b"'),
        ("json", [{"op": "add", "path": "", "value": 1}], 'missing path: ""'),
        ("json", [{"op": "add"}], "missing path"),
        ("json", [{"op": "add", "path": "/spec/containers/x"}], "not a proper array index: 'x'"),
        ("json", [{"op": "test", "path": "/metadata/labels/a", "value": True}], "test failed"),
        ("json", [{"op": "move", "from": "/none", "path": "/b"}], "nonexistent key: none"),
        ("json", [{"op": "frob", "path": "/spec"}], "Unexpected kind: frob"),
    ],
)
def test_a_patch_that_can_not_be_applied(type_: str, patch: Any, reason: str) -> None:
    with pytest.raises(PatchError, match="(?s)" + reason.replace('"', '"')):
        after(patch, type_)
