"""Errors in manifests are reported with file, line, field and reason."""

from __future__ import annotations

from pathlib import Path

import pytest

from lab.cli.output import yaml_text
from lab.cluster.state import repository
from lab.cluster.store import Store
from lab.manifests.kustomize import kustomization
from lab.manifests.load import load, parse
from lab.manifests.read import ManifestError

POD = """\
apiVersion: v1
kind: Pod
metadata:
  name: a
spec:
  containers:
  - name: c
    image: curlimages/curl
"""


def errors(text: str, namespace: str | None = None) -> tuple[str, ...]:
    with pytest.raises(ManifestError) as caught:
        parse([("x.yaml", text)], namespace)
    return caught.value.lines


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (
            POD + "    foo: 1\n",
            'x.yaml:9: Pod a: strict decoding error: unknown field "spec.containers[0].foo"',
        ),
        (POD + "    image: twice\n", 'x.yaml:9: the key "image" is given twice'),
        (POD.replace("name: a", "name: A_b"), 'x.yaml:4: Pod A_b: metadata.name: "A_b" is not'),
        (
            POD + "    env:\n    - name: VERSION\n      value: 1.0\n",
            "x.yaml:11: Pod a: spec.containers[0].env[0].value: must be a string, and YAML reads "
            '1.0 as a number: write "1.0"',
        ),
        (
            POD + "    env: [{name: DEBUG, value: on}]\n",
            "x.yaml:9: Pod a: spec.containers[0].env[0].value: must be a string, and YAML reads "
            'on as true: write "on"',
        ),
        (POD + '    ports: [{containerPort: "80"}]\n', "x.yaml:9: Pod a: spec.containers[0].ports"),
        (POD + "    volumeMounts: [{name: v, mountPath: /v}]\n", 'no volume is named "v"'),
        (POD + "    readinessProbe: {periodSeconds: 3}\n", "exactly one of httpGet"),
        (POD + "    readinessProbe: {grpc: {port: 1}}\n", "not supported by the lab"),
        (POD + "  hostNetwork: true\n", "x.yaml:9: Pod a: spec.hostNetwork: not supported"),
        (POD.replace("kind: Pod", "kind: Job"), "x.yaml:2: Job a: kind: the lab has no Job"),
        (POD.replace("kind: Pod", "kind: Job"), "no Job (v1); `guestbook api-resources` lists"),
        (
            POD.replace("kind: Pod", "kind: Virtualservice"),
            'the lab has no Virtualservice (v1) (did you mean "VirtualService"?); `guestbook',
        ),
        (POD.replace("v1", "v2", 1), "x.yaml:2: Pod a: kind: Pod exists as v1, not v2"),
        (POD.replace("- name: c", "- name: &x [*x]"), "x.yaml:7: an alias that contains itself"),
        (POD + "  - [", "x.yaml:"),
        ("just text", "x.yaml:1: a resource is a mapping"),
        (POD.replace("  containers", "  <<: {}\n  containers"), "x.yaml:6: merge keys"),
    ],
)
def test_a_problem_names_its_line(text: str, line: str) -> None:
    found = errors(text)
    assert any(line in error for error in found), found


ROUT = """
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: a}
spec: {hosts: [a], http: [{rout: []}]}
"""


def test_a_field_that_is_spelled_wrongly_is_guessed() -> None:
    (error,) = errors(ROUT)
    assert error == (
        "x.yaml:5: VirtualService a: strict decoding error: "
        'unknown field "spec.http[0].rout" (did you mean "route"?)'
    )


ABORT = """
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: a}
spec:
  hosts: [a]
  http:
  - fault:
    abort: {httpStatus: 503}
    subset: v1
    route: [{destination: {host: a}}]
"""


def test_a_field_beside_the_one_that_it_belongs_to_is_led_there() -> None:
    said = "VirtualService a: strict decoding error: unknown field"
    assert list(errors(ABORT)) == [
        f'x.yaml:9: {said} "spec.http[0].abort" (it belongs under fault: indent it further)',
        f'x.yaml:10: {said} "spec.http[0].subset"',
    ]


def test_every_problem_of_every_document_is_named() -> None:
    text = POD + "    a: 1\n    b: 2\n---\n" + POD + "    c: 3\n"
    assert [error.split(":")[1] for error in errors(text)] == ["9", "10", "20"]


def test_an_item_of_a_list_keeps_its_line() -> None:
    items = "".join("  " + line + "\n" for line in (POD + "    bad: 1\n").splitlines())
    text = "apiVersion: v1\nkind: List\nitems:\n-" + items[1:]
    assert errors(text) == (
        'x.yaml:12: Pod a: strict decoding error: unknown field "spec.containers[0].bad", '
        "or one of Kubernetes that the lab does not support",
    )


@pytest.mark.parametrize("items", ["", "items:\n"])
def test_a_list_without_items_is_refused(items: str) -> None:
    (line,) = errors(f"apiVersion: v1\nkind: List\n{items}")
    assert line.startswith("x.yaml:2: List (no name): kind: the lab has no List")


def test_yaml_that_only_looks_like_something_else() -> None:
    text = POD + "    args: [2026-01-31, '8080:80', 12:30:45, ~x, 'null']\n"
    pod = parse([("x.yaml", text)]).resources[0]
    assert pod.spec.containers[0].args == ["2026-01-31", "8080:80", "12:30:45", "~x", "null"]


def test_a_bomb_of_aliases_is_refused() -> None:
    text = "a: &a [x, x, x, x, x, x, x, x, x, x]\n"
    for one, two in zip("abcdefg", "bcdefgh", strict=True):
        text += f"{two}: &{two} [{', '.join(['*' + one] * 10)}]\n"
    assert "too large once its aliases are expanded" in errors(text)[0]


def test_the_namespace_asked_for() -> None:
    assert parse([("x.yaml", POD)], "blue").resources[0].namespace == "blue"
    text = POD.replace("name: a", "name: a\n  namespace: red")
    assert "x.yaml:5: Pod a: metadata.namespace" in errors(text, "blue")[0]
    assert parse([("x.yaml", text)], "red").resources[0].namespace == "red"


def test_what_a_server_adds_may_be_applied_again() -> None:
    text = POD.replace("name: a", "name: a\n  uid: x\n  creationTimestamp: z") + "status: {}\n"
    assert parse([("x.yaml", text)]).resources[0].name == "a"


def test_fields_without_effect_are_warned_about_once_a_document() -> None:
    text = POD + "    resources: {limits: {cpu: 1}}\n  nodeSelector: {disk: ssd}\n"
    warnings = parse([("x.yaml", text)]).warnings
    assert len(warnings) == 1
    assert "resources, nodeSelector" in warnings[0]


def test_the_repository_loads() -> None:
    """k8s/base is in the supported subset, and the only warnings are of fields without effect."""
    loaded = load([str(repository() / "k8s" / "base")])
    assert {"ui", "message-service", "guestbook-service", "redis", "mysql"} <= {
        resource.name for resource in loaded.resources
    }
    assert all("no effect in the lab" in warning for warning in loaded.warnings)


def test_a_kustomization_lists_resources(tmp_path: Path) -> None:
    (tmp_path / "more").mkdir()
    (tmp_path / "pod.yaml").write_text(POD)
    (tmp_path / "more" / "b.yaml").write_text(POD.replace("name: a", "name: b"))
    (tmp_path / "more" / "kustomization.yaml").write_text("resources: [b.yaml]\n")
    file = tmp_path / "kustomization.yaml"
    file.write_text("resources:\n- pod.yaml\n- more\n")
    loaded = parse(kustomization(str(tmp_path)))
    assert [resource.name for resource in loaded.resources] == ["a", "b"]
    file.write_text("resources:\n- pod.yaml\nnamePrefix: x-\n")
    with pytest.raises(ManifestError) as caught:
        kustomization(str(tmp_path))
    assert caught.value.lines[0].startswith(f"{file}:3: namePrefix: ")
    file.write_text("resources:\n- pod.yaml\n- none.yaml\n")
    with pytest.raises(ManifestError, match=r"kustomization.yaml:3: none.yaml: no such file"):
        kustomization(str(tmp_path))


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="no such file"):
        load([str(tmp_path / "none.yaml")])
    with pytest.raises(ManifestError, match=r"no \.yaml"):
        load([str(tmp_path)])
    (tmp_path / "latin.yaml").write_bytes(b"a: \xff\n")
    with pytest.raises(ManifestError, match="not UTF-8"):
        load([str(tmp_path)])


@pytest.mark.parametrize(
    "text",
    ["y", "N", "1e3", "-2E05", "on", "1:30", "0x1f", "~", "", "a\n  b\n", "a\n\n", "\x7f\u2028"],
)
def test_a_text_is_the_same_after_it_was_kept(text: str, tmp_path: Path) -> None:
    """On the lab's disk, and in what `get -o yaml` prints."""
    data = {"last": text}
    config = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}, "data": data}
    Store(tmp_path).apply(parse([("x", config)]).resources[0])
    again = Store(tmp_path)
    assert list(again.restore()) == []
    assert again.body("ConfigMap", "default", "c").data == data
    (printed,) = parse([("x", yaml_text(config) + "\n")]).resources
    assert printed.body.data == data
