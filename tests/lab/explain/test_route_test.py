"""`guestbook route test`: test files in the format of istio-config-validator, and beyond it."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import pytest

from lab.cli import main
from lab.cluster.state import repository
from tests.support.lab import Answer

SHOP = """
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: shop, namespace: shop}
spec:
  hosts: [www.shop.example, shop.example]
  http:
  - match: [{uri: {prefix: /home}}]
    redirect: {uri: /, authority: www.shop.example}
  - match: [{uri: {regex: "/users(/.*)?"}}]
    route: [{destination: {host: users.users.svc.cluster.local, port: {number: 80}}}]
    headers: {request: {set: {x-from: shop}}}
  - match: [{uri: {prefix: /resale}, headers: {x-class: {exact: bot}}}]
    route: [{destination: {host: partner.partner.svc.cluster.local}}]
    fault: {abort: {percentage: {value: 100}, httpStatus: 403}}
  - name: resale
    match: [{uri: {prefix: /resale}}]
    route: [{destination: {host: partner.partner.svc.cluster.local}}]
    rewrite: {uri: /partner}
  - match: [{uri: {prefix: /basket}}]
    delegate: {name: basket}
  - match: [{uri: {prefix: /absent}}]
    delegate: {name: absent}
  - route: [{destination: {host: rest.rest.svc.cluster.local}}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: basket, namespace: shop}
spec:
  http:
  - match: [{uri: {prefix: /basket/add}}]
    route: [{destination: {host: basket}}]
"""

FORMAT = """
testCases:
- description: both hosts, both paths
  wantMatch: true
  request:
    authority: [www.shop.example, shop.example]
    method: [GET, POST]
    uri: [/users, /users/]
    headers: {x-id: abc}
  route: [{destination: {host: users.users.svc.cluster.local, port: {number: 80}}}]
  headers: {request: {set: {x-from: shop}}}
- description: not to the partner
  wantMatch: false
  request: {authority: [shop.example], method: [PUT], uri: [/partner]}
  route: [{destination: {host: partner.partner.svc.cluster.local}}]
---
testCases:
- description: home
  wantMatch: true
  request: {authority: [shop.example], method: [GET], uri: [/home]}
  redirect: {uri: /, authority: www.shop.example}
- description: bots
  wantMatch: true
  request: {authority: [shop.example], method: [GET], uri: [/resale], headers: {x-class: bot}}
  route: [{destination: {host: partner.partner.svc.cluster.local}}]
  fault: {abort: {percentage: {value: 100}, httpStatus: 403}}
- description: people
  wantMatch: true
  request: {authority: [shop.example], method: [GET], uri: [/resale]}
  rewrite: {uri: /partner}
- description: the delegate
  wantMatch: true
  request: {authority: [shop.example], method: [GET], uri: [/basket/add]}
  route: [{destination: {host: basket.shop.svc.cluster.local}}]
  delegate: {name: basket, namespace: shop}
- description: a delegate of another file
  wantMatch: true
  request: {authority: [shop.example], method: [GET], uri: [/absent/1]}
  delegate: {name: absent}
"""

Judge = Callable[..., Answer]

GUESTBOOK = ("k8s/base", "istio/install/istio.yaml", "istio/clients/curl.yaml", "istio/02-ingress")


@pytest.fixture
def judge(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Judge:
    """Runs test cases on manifests; files are named as they are typed."""
    monkeypatch.chdir(repository())

    def judged(cases: str, *options: str, mesh: str = "", files: tuple[str, ...] = ()) -> Answer:
        (tmp_path / "cases.yaml").write_text(cases)
        (tmp_path / "mesh.yaml").write_text(mesh)
        named = [*files, *([str(tmp_path / "mesh.yaml")] if mesh else [])]
        words = [word for name in named for word in ("-f", name)]
        status = main(["route", "test", str(tmp_path / "cases.yaml"), *words, *options])
        printed = capsys.readouterr()
        return Answer(status, printed.out.replace(f"{tmp_path}/", ""), printed.err)

    return judged


def case(rest: str, uri: str = "/", host: str = "message-service", more: str = "") -> str:
    return (
        f"testCases:\n- description: it\n  wantMatch: true\n"
        f"  request: {{authority: ['{host}'], method: [GET], uri: ['{uri}']{more}}}\n  {rest}\n"
    )


def test_files_of_istio_config_validator_are_read_as_they_stand(judge: Judge) -> None:
    answer = judge(FORMAT, mesh=SHOP)
    assert answer.status == 0, answer
    assert "7 cases, 14 requests: 14 pass, 0 fail" in answer.out
    assert "note: users.users.svc.cluster.local is not in these files" in answer.out
    assert "note: the delegate shop/absent is not in these files" in answer.out
    assert "6 of 6 rules of VirtualServices are met" in answer.out


@pytest.mark.parametrize(
    ("old", "new", "seen"),
    [
        ("number: 80}", "number: 81}", 'route: expected [{"destination"'),
        ("set: {x-from: shop}", "set: {x-from: mall}", '{"x-from": "shop"}}}  mesh.yaml:10'),
        ("uri: [/partner]", "uri: [/resale]", "route: expected anything but [{"),
        ("redirect: {uri: /,", "redirect: {uri: /x,", 'seen     {"authority": "www.shop.example"'),
        ("httpStatus: 403", "httpStatus: 404", '"httpStatus": 403'),
        ("rewrite: {uri: /partner}", "rewrite: {uri: /p}", 'seen     {"uri": "/partner"}'),
        ("delegate: {name: absent}", "delegate: {name: other}", 'seen     {"name": "absent"}'),
        ("uri: [/basket/add]", "uri: [/basket/drop]", "rest.rest.svc.cluster.local"),
    ],
)  # fmt: skip
def test_a_field_that_differs_fails_its_case(judge: Judge, old: str, new: str, seen: str) -> None:
    assert old in FORMAT
    answer = judge(FORMAT.replace(old, new), mesh=SHOP)
    assert answer.status == 1
    assert answer.out.count("FAIL") == 1
    assert seen in answer.out


def test_rules_that_istiod_leaves_out_are_named(judge: Judge) -> None:
    mesh = SHOP.replace("{uri: {prefix: /basket}}", '{uri: {regex: "/basket.*"}}')
    answer = judge(FORMAT, mesh=mesh)
    assert answer.status == 1
    assert answer.out.count("is dropped") == 1  # at the case of its requests, and no other
    assert (
        "note: mesh.yaml:21: VirtualService shop: spec.http[4].delegate: rule mesh.yaml:31 is "
        "dropped, because its match at mesh.yaml:31 is not within this rule's: uri has a regex, "
        "which istiod compares with nothing"
    ) in answer.out
    assert "not met: VirtualService shop/basket, http[0]  mesh.yaml:31" in answer.out


@pytest.mark.parametrize(
    ("wanted", "files", "more"),
    [
        ("outcome: forwarded", (), ""),
        ("pods: [message-service]", (), ""),
        ("mTLS: true", (), ""),
        ("policy: allowed", (), ""),
        ("policy: no ALLOW policy applies", (), ""),
        ("from: curl\n  policy: denied", ("istio/14-authorization/deny-all.yaml",), ""),
        ("policy: default/deny-all", ("istio/14-authorization/deny-all.yaml",), ""),
        ("status: 403", ("istio/14-authorization/deny-all.yaml",), ""),
        ("steps: {retries: 2 more, timeout: none}", (), ""),
        ("steps: {retries: gateway-error}", ("istio/05-retries/virtual-service.yaml",), ""),
    ],
)
def test_more_than_the_rule_can_be_asked_for(
    judge: Judge, wanted: str, files: tuple[str, ...], more: str
) -> None:
    holds = judge(case(wanted, "/hello/x", more=more), files=(*GUESTBOOK, *files))
    assert holds.status == 0, holds


@pytest.mark.parametrize(
    ("wanted", "seen"),
    [
        ("outcome: refused", "seen     forwarded"),
        ("status: 403", "seen     forwarded"),
        ("pods: [ui]", "seen     message-service-0, message-service-1"),
        ("mTLS: false", "seen     mutual TLS"),
        ("policy: denied", "seen     allowed: no ALLOW policy applies"),
        ("subset: v2", "seen     none"),
        ("token: accepted", "seen     none"),
        ("steps: {mirror: ui}", "seen     no such step"),
    ],
)
def test_what_does_not_hold_is_shown(judge: Judge, wanted: str, seen: str) -> None:
    answer = judge(case(wanted, "/hello/x"), files=GUESTBOOK)
    assert answer.status == 1
    assert seen in answer.out


def test_subsets_with_a_share(judge: Judge) -> None:
    split = "istio/07-traffic-shifting"
    files = (
        *GUESTBOOK,
        f"{split}/ui-v2.yaml",
        f"{split}/destination-rule.yaml",
        f"{split}/20-80.yaml",
    )
    assert judge(case("subset: [v1, v2]", host="localhost"), files=files).status == 0
    assert judge(case("subset: v1", host="localhost"), files=files).status == 1


def test_tokens(judge: Judge) -> None:
    files = (*GUESTBOOK, "istio/15-jwt/request-authentication.yaml", "istio/15-jwt/ui-viewer.yaml")
    without = case("{from: ingress, status: 403, token: missing}".strip("{}").replace(", ", "\n  "))
    assert judge(without.replace("message-service", "localhost"), files=files).status == 0
    wrong = case("token: refused", host="localhost", more=", token: nonsense")
    assert judge(wrong, files=files).status == 0


def test_any_client_is_where_the_rule_is_in_force(judge: Judge) -> None:
    route = "route: [{destination: {host: ui, port: {number: 80}}}]"
    answer = judge(case(route, host="localhost"), files=GUESTBOOK)
    assert answer.status == 0
    inside = judge(case(route, host="localhost"), "--from", "curl", files=GUESTBOOK)
    assert inside.status == 1
    assert "default/curl" in inside.out


def test_a_gateway_of_other_files_is_a_note(judge: Judge) -> None:
    mesh = SHOP.replace("  hosts: [www", "  gateways: [infra/public]\n  hosts: [www")
    answer = judge(FORMAT, mesh=mesh)
    assert answer.status == 0
    assert "no gateway serves infra/public" in answer.out


def test_coverage_can_be_demanded(judge: Judge) -> None:
    few = case("outcome: forwarded", "/users", host="shop.example")
    answer = judge(few, "--fail-under", "50", mesh=SHOP)
    assert (answer.status, answer.err) == (1, "Error: 17% of the rules are met, less than 50.0%\n")
    assert "not met: VirtualService shop/shop, http[3] “resale”  mesh.yaml:16" in answer.out
    assert judge(few, "--fail-under", "16", mesh=SHOP).status == 0


def test_reports_for_ci(judge: Judge) -> None:
    bad = FORMAT.replace("rewrite: {uri: /partner}", "rewrite: {uri: /p}")
    report = judge(bad, "-o", "junit", mesh=SHOP)
    (suite,) = ElementTree.fromstring(report.out)
    assert (suite.get("tests"), suite.get("failures")) == ("14", "1")
    notes = judge(bad, "-o", "github", mesh=SHOP).out.splitlines()
    (error,) = (line for line in notes if line.startswith("::error "))
    assert error.startswith("::error file=cases.yaml,line=27,title=people::GET http")
    assert "%0A" in error


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (case("policies: x"), 'cases.yaml:5: testCases[0].policies: strict decoding error'),
        (case("status: no"), "cases.yaml:5: testCases[0].status"),
        ("testCases: [{request: {authority: [], method: [GET], uri: [/]}}]", "authority list is"),
        ("testCases: [{request: {method: [GET], uri: [/]}}]", "request.authority: required"),
        ("cases: []", "required, but missing"),
        ("- a", "a test file is a mapping with testCases"),
        ("a: [", "cases.yaml:"),
        ("", "no testCases in"),
        (case("from: nobody"), "no pod, workload or app called nobody"),
        (case("status: 200", "/", more=", port: 99999"), "cases.yaml:2: http://"),
    ],
)  # fmt: skip
def test_faulty_files_are_refused_with_the_line(judge: Judge, text: str, said: str) -> None:
    answer = judge(text, files=GUESTBOOK)
    assert answer.status == 1
    assert answer.out == ""
    assert said in answer.err


def test_a_case_without_want_match_is_noted(judge: Judge) -> None:
    text = FORMAT.replace("  wantMatch: true\n", "", 1)
    answer = judge(text, mesh=SHOP)
    assert answer.status == 1
    assert "note: no wantMatch" in answer.out


def test_the_page_about_it_shows_what_its_command_prints(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    page = (repository() / "docs" / "route-test.md").read_text()
    commands, file, printed = re.findall(r"```\w*\n(.*?)```", page, re.DOTALL)
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "routes.yaml").write_text(file)
    for folder in ("k8s", "istio"):
        (tmp_path / folder).symlink_to(repository() / folder)
    monkeypatch.chdir(tmp_path)
    assert main(commands.splitlines()[0].split()[1:]) == 1
    assert capsys.readouterr().out == printed
