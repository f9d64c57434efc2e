"""`guestbook explain`: the fields of kinds, in kubectl's form."""

from __future__ import annotations

import pytest

from lab.cli import main
from lab.manifests import registry, schema
from lab.resources.resource import Kind


def explained(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert main(["explain", *words]) == 0
    return capsys.readouterr().out


def test_a_field_of_istio_is_explained_in_kubectls_form(capsys: pytest.CaptureFixture[str]) -> None:
    text = explained(capsys, "virtualservice.spec.http.retries")
    assert text.startswith(
        "GROUP:      networking.istio.io\nKIND:       VirtualService\nVERSION:    v1\n\n"
        "FIELD: retries <Object>\n\nDESCRIPTION:\n    Retry policy for HTTP requests.\n\nFIELDS:\n"
        "  attempts\t<integer>\n    Number of retries to be allowed for a given request.\n\n"
    )


@pytest.mark.parametrize(
    ("path", "line"),
    [
        ("vs.spec", "  hosts\t<[]string>"),
        ("vs.spec.http", "FIELD: http <[]Object>"),
        ("vs.spec.http.route", "  destination\t<Object> -required-"),
        ("dr.spec.subsets", "  labels\t<map[string]string>"),
        ("pa.spec.mtls", "  enum: UNSET, DISABLE, PERMISSIVE, STRICT"),
        ("deploy", "  spec\t<Object> -required-"),
        ("deployment.spec.strategy", "  enum: RollingUpdate, Recreate"),
        ("svc.metadata", "  name\t<string> -required-"),
        ("pod.spec.containers", "    In the lab: no effect: processes share the machine"),
        ("pod.spec", "    In the lab: refused: every pod has its own address."),
        ("netpol", "    Kept and printed; it changes nothing on one machine."),
    ],
)
def test_types_values_and_the_limits_of_the_lab(
    path: str, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert any(found.startswith(line) for found in explained(capsys, path).splitlines())


def test_a_tree_of_fields(capsys: pytest.CaptureFixture[str]) -> None:
    lines = explained(capsys, "ap.spec.rules", "--recursive").splitlines()
    at = lines.index("  from\t<[]Object>")
    assert lines[at + 1 : at + 3] == ["    source\t<Object>", "      ipBlocks\t<[]string>"]


@pytest.mark.parametrize("kind", registry.KINDS, ids=lambda kind: kind.kind)
def test_every_kind_can_be_explained(kind: Kind) -> None:
    found = schema.explain(kind, ())
    assert {"apiVersion", "kind", "metadata"} <= {field.name for field in found.fields}
    for field in found.fields:
        schema.explain(kind, [field.name])


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("vs.spec.http.retry", 'in VirtualService.spec.http (did you mean "retries"?)'),
        ("vs.http", 'field "http" does not exist in VirtualService'),
        ("vs.spec.hosts.a", 'field "a" does not exist in VirtualService.spec.hosts'),
        ("virtualservise", 'a resource type "virtualservise" (did you mean "virtualservice"?)'),
    ],
)  # fmt: skip
def test_what_is_misspelled_is_guessed(
    path: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["explain", path]) == 1
    assert said in capsys.readouterr().err
