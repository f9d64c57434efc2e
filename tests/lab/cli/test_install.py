"""install: values from the command line, and after those of files."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from lab.cli import overrides
from lab.cli.client import FailureError
from tests.support.lab import Lab

LOG = "meshConfig.accessLogFile=/dev/stdout"
CLOSED = "meshConfig.outboundTrafficPolicy.mode=REGISTRY_ONLY"
FILE = """
apiVersion: install.istio.io/v1alpha1
kind: IstioOperator
metadata: {name: of-a-file}
spec: {meshConfig: {outboundTrafficPolicy: {mode: ALLOW_ANY}}}
"""


@pytest.mark.parametrize(
    ("words", "spec"),
    [
        (
            [LOG, "profile=demo"],
            {"meshConfig": {"accessLogFile": "/dev/stdout"}, "profile": "demo"},
        ),
        (
            ["a.b=1", "a.c=true", "a.d=-1.5", "a.e=0.00"],
            {"a": {"b": 1, "c": True, "d": -1.5, "e": 0}},
        ),
        (
            ["a=123foobar", "b=", "c=x=y", r"d=1\,2"],
            {"a": "123foobar", "b": "", "c": "x=y", "d": "1,2"},
        ),
        (["a[0].n=x", "a[0].m=2", "a[1].n=y"], {"a": [{"n": "x", "m": 2}, {"n": "y"}]}),
        (["a[0]=x", "a[7]=y", "a[0]=z"], {"a": ["z", "y"]}),
        ([r"a.b\.c/d=1", "tag=1.31"], {"a": {"b.c/d": 1}, "tag": "1.31"}),
        (["a=1", "a=2"], {"a": 2}),
    ],
)
def test_values_are_read_as_istioctl_reads_them(words: list[str], spec: object) -> None:
    assert overrides.operator(words)["spec"] == spec


@pytest.mark.parametrize(
    "words", [["a"], ["=1"], ["a[name:x].b=1"], ["a=1", "a.b=2"], ["[0]=1"], [".=1"]]
)
def test_words_that_are_no_values(words: list[str]) -> None:
    with pytest.raises(FailureError):
        overrides.operator(words)


@pytest.fixture
def restored(lab: Lab) -> Iterator[None]:
    yield
    lab.ok("delete", "istiooperators", "--all", "-n", "istio-system")


def unknown_hosts(lab: Lab) -> list[str]:
    """The virtual host of curl's proxy for hosts that it does not know."""
    routes = lab.ok("proxy-config", "routes", "curl", "--name", "80", "-o", "yaml")
    return [name for name in ("allow_any", "block_all") if f"name: {name}" in routes]


@pytest.mark.usefixtures("restored")
def test_a_value_comes_after_those_of_files(lab: Lab) -> None:
    assert unknown_hosts(lab) == ["allow_any"]
    lab.ok("install", "--set", CLOSED, "-y")
    assert unknown_hosts(lab) == ["block_all"]
    lab.ok("install", "-f", "-", stdin=FILE)
    assert unknown_hosts(lab) == ["allow_any"]
    lab.ok("install", "-f", "-", "-s", CLOSED, "--set", LOG, stdin=FILE)
    assert unknown_hosts(lab) == ["block_all"]
    lab.ok("install", "--set", CLOSED)
    lab.ok("install", "-f", "-", "--set", CLOSED, stdin=FILE)
    assert unknown_hosts(lab) == ["block_all"]


@pytest.mark.usefixtures("restored")
def test_a_value_is_checked_as_a_field_of_a_file(lab: Lab) -> None:
    for value, reason in (
        ("meshConfig.accessLogFil=x", '(did you mean "accessLogFile"?)'),
        ("profile=ambient", "spec.profile: input should be 'default', 'demo'"),
        ("revision=canary", "spec.revision: not supported by the lab: several control planes"),
    ):
        answer = lab.run("install", "--set", value)
        assert answer.status == 1
        assert reason in answer.err
    beside = lab.run("install", "-f", "-", "--set", "a[0]=1", stdin=FILE)
    assert beside.err == "Error: --set a[0]=1: beside -f a list belongs into the file\n"


def test_the_config_map_of_the_mesh(lab: Lab) -> None:
    for verb in ("get", "edit"):
        answer = lab.run(verb, "configmap", "istio", "-n", "istio-system")
        assert answer.status == 1
        assert "`install --set meshConfig.FIELD=VALUE` change it" in answer.err
