"""VirtualService, as a client behind a real sidecar sees it."""

from __future__ import annotations

import time
from collections import Counter

import pytest

from tests.support.harness import Mesh
from tests.support.routing import V1, V2, attempts, routed, version
from tests.support.wait import wait


@pytest.mark.parametrize(
    ("match", "hits", "misses"),
    [
        ("uri: {exact: /a}", ["/a", "/a?q=1"], ["/a/", "/ab", "/A"]),
        ("uri: {prefix: /a}", ["/a", "/ab", "/a/b"], ["/b", "/A"]),
        ("uri: {regex: '/a[0-9]+'}", ["/a12", "/a1?x=y"], ["/a", "/a1b", "/x/a1"]),
        ("uri: {prefix: /a}\n    ignoreUriCase: true", ["/a", "/Ab"], ["/b"]),
        ("uri: {exact: /a}\n    ignoreUriCase: true", ["/a", "/A"], ["/ab"]),
        ("queryParams: {q: {exact: one}}", ["/?q=one", "/?p=1&q=one"], ["/", "/?q=ones"]),
        ("queryParams: {q: {prefix: 'on'}}", ["/?q=one"], ["/?q=two"]),
        ("queryParams: {q: {regex: 'o.*'}}", ["/?q=one"], ["/?q=two", "/?q=zo"]),
        ("queryParams: {q: {}}", ["/?q=one", "/?q="], ["/?p=1"]),
    ],
)
def test_a_path_or_query_chooses_the_route(
    mesh: Mesh, match: str, hits: list[str], misses: list[str]
) -> None:
    mesh.apply(routed(f"- match:\n  - {match}\n  {V2}\n- {V1}"))
    assert [version(mesh, path) for path in hits] == ["2.0"] * len(hits)
    assert [version(mesh, path) for path in misses] == ["1.0"] * len(misses)


@pytest.mark.parametrize(
    ("match", "hits", "misses"),
    [
        ("headers: {x-user: {exact: ann}}", ["ann"], [None, "Ann", "anna"]),
        ("headers: {x-user: {prefix: an}}", ["ann", "an"], [None, "Ann"]),
        ("headers: {x-user: {regex: 'a.*n'}}", ["ann", "a-n"], [None, "anne"]),
        ("headers: {x-user: {}}", ["ann", ""], [None]),
        ("withoutHeaders: {x-user: {exact: ann}}", [None, "bob"], ["ann"]),
        ("withoutHeaders: {x-user: {regex: 'a.*'}}", [None, "bob"], ["ann"]),
        ("withoutHeaders: {x-user: {}}", [None], ["ann"]),
    ],
)
def test_a_header_chooses_the_route(
    mesh: Mesh, match: str, hits: list[str | None], misses: list[str | None]
) -> None:
    mesh.apply(routed(f"- match:\n  - {match}\n  {V2}\n- {V1}"))

    def ask(user: str | None) -> str:
        return version(mesh, **({} if user is None else {"x-user": user}))

    assert [ask(user) for user in hits] == ["2.0"] * len(hits)
    assert [ask(user) for user in misses] == ["1.0"] * len(misses)


def test_method_authority_and_scheme_choose_the_route(mesh: Mesh) -> None:
    mesh.apply(
        routed(
            f"""
            - match:
              - method: {{exact: POST}}
              - authority: {{prefix: server.default}}
              - scheme: {{exact: https}}
              {V2}
            - {V1}
            """
        )
    )
    assert version(mesh, method="POST") == "2.0"
    assert version(mesh) == "1.0"
    reply = mesh.request("client", "http://server.default/")
    assert reply.json()["version"] == "2.0"


def test_fields_of_a_match_are_anded_and_matches_ored(mesh: Mesh) -> None:
    mesh.apply(
        routed(
            f"""
            - match:
              - uri: {{prefix: /a}}
                headers: {{x-user: {{exact: ann}}}}
              - uri: {{prefix: /b}}
              {V2}
            - {V1}
            """
        )
    )
    assert version(mesh, "/a", **{"x-user": "ann"}) == "2.0"
    assert version(mesh, "/a") == "1.0"
    assert version(mesh, "/b") == "2.0"


def test_the_first_matching_route_wins_and_none_is_a_404(mesh: Mesh) -> None:
    mesh.apply(
        routed(
            f"""
            - match: [{{uri: {{prefix: /a}}}}]
              {V1}
            - match: [{{uri: {{prefix: /ab}}}}]
              {V2}
            """
        )
    )
    assert version(mesh, "/ab") == "1.0"
    reply = mesh.request("client", "http://server/c")
    assert (reply.status_code, reply.text) == (404, "")


def test_who_asks_chooses_the_route(mesh: Mesh) -> None:
    mesh.apply(
        routed(
            f"""
            - match: [{{sourceLabels: {{app: client}}, uri: {{prefix: /a}}}}]
              {V2}
            - match: [{{sourceLabels: {{app: somebody}}}}, {{sourceNamespace: elsewhere}}]
              {V2}
            - match: [{{port: 80}}]
              {V1}
            """
        )
    )
    assert version(mesh, "/a") == "2.0"
    assert version(mesh, "/b") == "1.0"
    mesh.apply(
        routed(f"- match: [{{port: 8080}}]\n  {V2}\n- match: [{{uri: {{exact: /x}}}}]\n  {V1}")
    )
    assert version(mesh, "/x") == "1.0"
    assert version(mesh, "/y") == "404"


def test_a_virtual_service_with_no_route_for_the_client_leaves_the_host_its_own(mesh: Mesh) -> None:
    elsewhere = f"- match: [{{sourceNamespace: elsewhere}}]\n  {V1}"
    mesh.apply(routed(elsewhere))
    assert {version(mesh) for _ in range(20)} == {"1.0", "2.0"}
    mesh.apply(routed(elsewhere) + routed(f"- {V2}", name="younger"))
    assert {version(mesh) for _ in range(20)} == {"2.0"}


def test_of_two_virtual_services_for_a_host_the_older_counts(mesh: Mesh) -> None:
    mesh.apply(
        routed(f"- {V2}", name="older") + routed(f"- {V1}", name="younger").split("---\n", 1)[1]
    )
    assert {version(mesh) for _ in range(4)} == {"2.0"}


def test_a_virtual_service_for_a_gateway_leaves_sidecars_alone(mesh: Mesh) -> None:
    mesh.apply(routed(f"- {V2}", spec="gateways: [some-gateway]\n"))
    assert {version(mesh) for _ in range(30)} == {"1.0", "2.0"}


def test_weights_share_the_requests(mesh: Mesh) -> None:
    mesh.apply(
        routed(
            """
            - route:
              - destination: {host: server, subset: v1}
                weight: 1
              - destination: {host: server, subset: v2}
                weight: 3
              - destination: {host: nowhere}
                weight: 0
            """
        )
    )
    seen = Counter(version(mesh) for _ in range(400))
    assert set(seen) == {"1.0", "2.0"}
    assert 0.65 < seen["2.0"] / 400 < 0.85  # five standard deviations around 0.75


def test_a_missing_subset_or_host_is_an_empty_503(mesh: Mesh) -> None:
    mesh.apply(routed("- route: [{destination: {host: server, subset: v9}}]"))
    reply = mesh.request("client", "http://server/")
    assert (reply.status_code, reply.text) == (503, "")
    mesh.apply(routed("- route: [{destination: {host: nowhere}}]"))
    assert version(mesh) == "503"


@pytest.mark.parametrize(
    ("rewrite", "asked", "seen"),
    [
        ("match: [{uri: {prefix: /old}}]\n  rewrite: {uri: /new}", "/old/x?q=1", "/new/x?q=1"),
        ("match: [{uri: {exact: /old}}]\n  rewrite: {uri: /new}", "/old", "/new"),
        ("match: [{uri: {prefix: /old}}]\n  rewrite: {uri: /}", "/old/x", "//x"),
        (
            "rewrite: {uriRegexRewrite: {match: '/v([0-9]+)/(.*)', rewrite: '/\\2/v\\1'}}",
            "/v3/cats",
            "/cats/v3",
        ),
    ],
)
def test_rewrite_changes_the_path(mesh: Mesh, rewrite: str, asked: str, seen: str) -> None:
    mesh.apply(routed(f"- {rewrite}\n  {V1}"))
    assert mesh.request("client", f"http://server{asked}").json()["path"] == seen


def test_rewrite_changes_the_authority(mesh: Mesh) -> None:
    mesh.apply(routed(f"- rewrite: {{authority: elsewhere.example}}\n  {V1}"))
    reply = mesh.request("client", "http://server/")
    assert reply.json()["headers"]["host"] == "elsewhere.example"


@pytest.mark.parametrize(
    ("redirect", "status", "location"),
    [
        ("uri: /new", 301, "http://server/new?q=1"),
        ("authority: other.example", 301, "http://other.example/old?q=1"),
        (
            "{uri: /new, authority: other.example, redirectCode: 302}",
            302,
            "http://other.example/new?q=1",
        ),
        ("{prefixRewrite: /new, scheme: https}", 301, "https://server/newold?q=1"),
        ("{scheme: https, redirectCode: 308}", 308, "https://server/old?q=1"),
        ("{port: 8443, scheme: https, redirectCode: 307}", 307, "https://server:8443/old?q=1"),
        (
            "{derivePort: FROM_REQUEST_PORT, uri: /new, redirectCode: 303}",
            303,
            "http://server/new?q=1",
        ),
    ],
)
def test_redirect(mesh: Mesh, redirect: str, status: int, location: str) -> None:
    text = redirect if redirect.startswith("{") else f"{{{redirect}}}"
    mesh.apply(routed(f"- redirect: {text}"))
    reply = mesh.request("client", "http://server/old?q=1")
    assert (reply.status_code, reply.headers["location"]) == (status, location)


def test_direct_response(mesh: Mesh) -> None:
    mesh.apply(
        routed(
            """
            - match: [{uri: {prefix: /tea}}]
              directResponse: {status: 418, body: {string: short and stout}}
            - match: [{uri: {prefix: /bytes}}]
              directResponse: {status: 200, body: {bytes: aGVsbG8=}}
            - directResponse: {status: 503}
            """
        )
    )
    replies = [mesh.request("client", f"http://server{p}") for p in ("/tea", "/bytes", "/")]
    assert [(r.status_code, r.text) for r in replies] == [
        (418, "short and stout"),
        (200, "hello"),
        (503, ""),
    ]


def test_headers_are_set_added_and_removed(mesh: Mesh) -> None:
    mesh.apply(
        routed(
            """
            - headers:
                request:
                  set: {x-set: route, x-percent: 100%%}
                  add: {x-add: route}
                  remove: [x-gone]
                response:
                  set: {x-version: one}
                  remove: [content-type]
              route:
              - destination: {host: server, subset: v1}
                headers:
                  request: {set: {x-destination: v1}}
            """
        )
    )
    sent = {"x-set": "client", "x-add": "client", "x-gone": "1"}
    reply = mesh.request("client", "http://server/", headers=sent)
    seen = reply.json()["headers"]
    assert seen["x-set"] == "route"
    assert seen["x-percent"] == "100%"
    assert seen["x-add"] == "client,route"
    assert seen["x-destination"] == "v1"
    assert "x-gone" not in seen
    assert reply.headers["x-version"] == "one"
    assert "content-type" not in reply.headers


def test_headers_of_a_weighted_destination_are_its_own(mesh: Mesh) -> None:
    mesh.apply(
        routed(
            """
            - route:
              - destination: {host: server, subset: v1}
                weight: 50
                headers: {request: {set: {x-to: v1}, add: {host: one.example}}}
              - destination: {host: server, subset: v2}
                weight: 50
                headers: {request: {set: {x-to: v2}}}
            """
        )
    )
    replies = [mesh.request("client", "http://server/").json() for _ in range(40)]
    seen = {(r["version"], r["headers"]["x-to"], r["headers"]["host"]) for r in replies}
    assert seen == {("1.0", "v1", "one.example"), ("2.0", "v2", "server")}


def test_a_timeout_ends_a_slow_request(mesh: Mesh) -> None:
    mesh.pods["server-v1"].server.delay = 1.0  # type: ignore[union-attr]
    mesh.apply(routed(f"- timeout: 0.2s\n  {V1}"))
    reply = mesh.request("client", "http://server/")
    assert (reply.status_code, reply.text) == (504, "upstream request timeout")
    mesh.apply(routed(f"- {V1}"))
    assert version(mesh) == "1.0"


@pytest.mark.parametrize(
    ("retries", "expected"),
    [
        ("", 1),
        ("retries: {attempts: 3}", 1),
        ("retries: {attempts: 3, retryOn: 5xx}", 4),
        ("retries: {attempts: 2, retryOn: gateway-error}", 3),
        ("retries: {attempts: 2, retryOn: '503'}", 3),
        ("retries: {attempts: 2, retryOn: '502'}", 1),
        ("retries: {attempts: 0}", 1),
    ],
)
def test_retries_happen_when_the_condition_says_so(mesh: Mesh, retries: str, expected: int) -> None:
    mesh.pods["server-v1"].server.status = 503  # type: ignore[union-attr]
    mesh.apply(routed(f"- {V1}\n  {retries}"))
    assert version(mesh) == "503"
    assert attempts(mesh) == expected


def test_a_retry_goes_to_another_pod(mesh: Mesh) -> None:
    mesh.pods["server-v1"].server.status = 503  # type: ignore[union-attr]
    mesh.apply(
        routed("- route: [{destination: {host: server}}]\n  retries: {attempts: 3, retryOn: 5xx}")
    )
    assert {version(mesh) for _ in range(20)} == {"2.0"}
    assert attempts(mesh) > 0


def test_per_try_timeout_is_retried_only_with_the_right_condition(mesh: Mesh) -> None:
    mesh.pods["server-v1"].server.delay = 0.6  # type: ignore[union-attr]
    mesh.apply(routed(f"- {V1}\n  retries: {{attempts: 3, perTryTimeout: 0.1s}}"))
    assert version(mesh) == "504"
    assert attempts(mesh) == 1
    mesh.calm()
    mesh.pods["server-v1"].server.delay = 0.6  # type: ignore[union-attr]
    mesh.apply(routed(f"- {V1}\n  retries: {{attempts: 2, perTryTimeout: 0.1s, retryOn: reset}}"))
    assert version(mesh) == "504"
    assert attempts(mesh) == 3


def test_the_meshs_default_retry_policy(mesh: Mesh) -> None:
    mesh.pods["server-v1"].server.status = 503  # type: ignore[union-attr]
    mesh.mesh_config["defaultHttpRetryPolicy"] = {"attempts": 1, "retryOn": "5xx"}
    try:
        mesh.apply(routed(f"- {V1}"))
        assert version(mesh) == "503"
        assert attempts(mesh) == 2
    finally:
        del mesh.mesh_config["defaultHttpRetryPolicy"]


def test_fault_abort_answers_in_the_services_place(mesh: Mesh) -> None:
    mesh.apply(
        routed(
            f"""
            - fault: {{abort: {{httpStatus: 503, percentage: {{value: 100}}}}}}
              {V1}
              retries: {{attempts: 3, retryOn: 5xx}}
            """
        )
    )
    reply = mesh.request("client", "http://server/")
    assert (reply.status_code, reply.text) == (503, "fault filter abort")
    assert attempts(mesh) == 0
    wait(lambda: " 503 FI fault_filter_abort " in mesh.pods["client"].log)


def test_fault_abort_hits_its_share_and_none_without_percentage(mesh: Mesh) -> None:
    mesh.apply(
        routed(f"- fault: {{abort: {{httpStatus: 500, percentage: {{value: 25}}}}}}\n  {V1}")
    )
    seen = Counter(version(mesh) for _ in range(400))
    assert 0.15 < seen["500"] / 400 < 0.35  # more than four standard deviations around 0.25
    mesh.apply(routed(f"- fault: {{abort: {{httpStatus: 500}}}}\n  {V1}"))
    assert {version(mesh) for _ in range(20)} == {"1.0"}


def test_fault_delay_waits_and_is_not_cut_by_the_timeout(mesh: Mesh) -> None:
    mesh.apply(
        routed(
            f"""
            - fault: {{delay: {{fixedDelay: 0.5s, percentage: {{value: 100}}}}}}
              timeout: 0.3s
              {V1}
            """
        )
    )
    started = time.monotonic()
    assert version(mesh) == "1.0"
    assert time.monotonic() - started >= 0.5


@pytest.mark.parametrize(
    "mirror",
    [
        "mirror: {host: server, subset: v2}",
        "mirror: {host: server, subset: v2}\n  mirrorPercentage: {value: 100}",
        "mirror: {host: server, subset: v2}\n  mirror_percent: 100",
        "mirrors: [{destination: {host: server, subset: v2}}]",
    ],
)
def test_a_mirror_gets_a_copy_and_its_answer_is_dropped(mesh: Mesh, mirror: str) -> None:
    mesh.apply(routed(f"- {V1}\n  {mirror}"))
    assert {version(mesh, "/copied") for _ in range(5)} == {"1.0"}
    shadow = mesh.pods["server-v2"].server
    assert shadow is not None
    wait(lambda: len(shadow.received) == 5)
    assert {received.path for received in shadow.received} == {"/copied"}
    assert {received.headers["host"] for received in shadow.received} == {"server"}


def test_several_mirrors_and_none_at_zero_percent(mesh: Mesh) -> None:
    mesh.apply(
        routed(
            f"""
            - {V1}
              mirrors:
              - destination: {{host: server, subset: v2}}
                percentage: {{value: 0}}
              - destination: {{host: other}}
            """
        )
    )
    assert version(mesh) == "1.0"
    other = mesh.pods["other"].server
    assert other is not None
    wait(lambda: len(other.received) == 1)
    assert attempts(mesh, "server-v2") == 0


def test_cors_preflight_and_actual_request(mesh: Mesh) -> None:
    mesh.apply(
        routed(
            f"""
            - corsPolicy:
                allowOrigins: [{{exact: "http://ui.example"}}]
                allowMethods: [GET, POST]
                allowHeaders: [x-one]
                maxAge: 24h
                allowCredentials: true
              {V1}
            """
        )
    )
    asked = {"origin": "http://ui.example", "access-control-request-method": "POST"}
    preflight = mesh.request("client", "http://server/", method="OPTIONS", headers=asked)
    assert preflight.status_code == 200
    assert preflight.headers["access-control-allow-methods"] == "GET,POST"
    assert preflight.headers["access-control-allow-headers"] == "x-one"
    assert preflight.headers["access-control-max-age"] == "86400"
    assert attempts(mesh) == 0
    actual = mesh.request("client", "http://server/", headers={"origin": "http://ui.example"})
    assert actual.headers["access-control-allow-origin"] == "http://ui.example"
    assert actual.headers["access-control-allow-credentials"] == "true"
    stranger = mesh.request("client", "http://server/", headers={"origin": "http://x.example"})
    assert "access-control-allow-origin" not in stranger.headers


def test_a_host_outside_the_registry_can_be_routed_on_port_80(mesh: Mesh) -> None:
    mesh.apply(routed(f"- {V2}").replace("hosts: [server]", "hosts: [made-up.example]"))
    reply = mesh.request("client", "http://made-up.example/")
    assert reply.json()["version"] == "2.0"


def test_a_wildcard_host_covers_services_without_a_virtual_service(mesh: Mesh) -> None:
    wildcard = routed("- directResponse: {status: 418}", name="wildcard").replace(
        "hosts: [server]", 'hosts: ["*.default.svc.cluster.local"]'
    )
    mesh.apply(wildcard + routed(f"- {V1}").split("---\n", 1)[1])
    assert version(mesh) == "1.0"
    assert mesh.request("client", "http://other/").status_code == 418
