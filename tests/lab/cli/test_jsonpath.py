"""kubectl's JSONPath, as far as people use it."""

from __future__ import annotations

import pytest

from lab.cli.client import FailureError
from lab.cli.jsonpath import evaluate

LIST = {
    "items": [
        {
            "metadata": {"name": "a", "annotations": {"x.io/y": "z"}},
            "spec": {"containers": [{"name": "c"}, {"name": "d"}]},
            "status": {"podIP": "1.2.3.4"},
        },
        {"metadata": {"name": "b"}, "spec": {"containers": [{"name": "e"}]}},
    ]
}
SERVICE = {"spec": {"ports": [{"name": "http2", "port": 80}, {"name": "https", "port": 443}]}}


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("{.items[0].metadata.name}", "a"),
        ("{.items[0].status.podIP}", "1.2.3.4"),
        ("{.items[*].metadata.name}", "a b"),
        ("{.items[*].spec.containers[*].name}", "c d e"),
        ("{.items[*].spec.initContainers[*].name}", ""),
        ('{range .items[*]}{.metadata.name}{"\\n"}{end}', "a\nb\n"),
        (
            '{range .items[*]}{.metadata.name}: {.spec.containers[*].name}{"\\n"}{end}',
            "a: c d\nb: e\n",
        ),
        ("{.items[0].metadata.annotations}", '{"x.io/y":"z"}'),
        ("{.items[0].metadata.annotations.x\\.io/y}", "z"),
        ("{.items[-1].metadata.name}", "b"),
        ("{..name}", "a c d b e"),
        (".items[0].metadata.name", "a"),
        ("ip={.items[0].status.podIP}!", "ip=1.2.3.4!"),
    ],
)
def test_templates(template: str, expected: str) -> None:
    assert evaluate(template, LIST) == expected


def test_filters() -> None:
    assert evaluate('{.spec.ports[?(@.name=="http2")].port}', SERVICE) == "80"
    assert evaluate('{.spec.ports[?(@.name!="http2")].port}', SERVICE) == "443"


@pytest.mark.parametrize("template", ["{.items[9].x}", "{.items[0}", "{range .items[*]}", "{end}"])
def test_bad_templates(template: str) -> None:
    with pytest.raises(FailureError, match="jsonpath"):
        evaluate(template, LIST)
