"""Options in the forms that Go's programs take."""

from __future__ import annotations

import pytest

from tests.support.lab import Lab


@pytest.mark.parametrize(
    ("words", "same"),
    [
        ("get deploy -n=istio-system -o=name", "get deploy -n istio-system -o name"),
        ("-n=istio-system get deploy -oname", "get deploy -n istio-system -o name"),
        ("get pods -Ao=name -lapp=curl", "get pods -A -o name -l app=curl"),
        ("get pods -l=app=curl,version!=2 -o=name", "get pods -l app=curl,version!=2 -o name"),
        ("get pod curl -o=jsonpath={.kind}={.kind}", "get pod curl -o jsonpath={.kind}={.kind}"),
        ("get pods -A=false -n -n=x", "get pods -n -n=x"),
        ("rollout history -n=default deploy/curl", "rollout history deploy/curl"),
        ("route test -f=none.yaml", "route test -f none.yaml"),
        ("exec curl -c=curl -- echo -n=x", "exec curl -c curl -- echo -n=x"),
    ],
)
def test_an_option_of_one_letter_takes_its_value_after_an_equals_sign(
    lab: Lab, words: str, same: str
) -> None:
    assert lab.run(*words.split()) == lab.run(*same.split())


def test_files_are_given_after_an_equals_sign(lab: Lab) -> None:
    config = '{apiVersion: v1, kind: ConfigMap, metadata: {name: equal}, data: {a: "1"}}'
    try:
        assert lab.ok("apply", "-n=default", "-f=-", stdin=config) == "configmap/equal created\n"
    finally:
        lab.ok("delete", "cm", "equal")
