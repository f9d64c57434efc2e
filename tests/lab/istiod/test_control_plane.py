"""The control plane's key sets: where they are fetched from, and what is said when they are not."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from lab.istiod.control_plane import ControlPlane
from lab.manifests import load
from lab.manifests.read import ManifestError
from lab.model import Snapshot
from lab.resources.resource import Resource


def policy(**rule: str) -> tuple[Resource, ...]:
    fields = "\n".join(f"    {name}: {value}" for name, value in rule.items())
    text = (
        "apiVersion: security.istio.io/v1\nkind: RequestAuthentication\nmetadata: {name: jwt}\n"
        f"spec:\n  jwtRules:\n  - fromCookies: [token]\n{fields}\n"
    )
    return tuple(load.parse([("jwt.yaml", text)]).resources)


def blocking(networks: str) -> tuple[Resource, ...]:
    text = (
        "apiVersion: install.istio.io/v1alpha1\nkind: IstioOperator\nmetadata: {name: istio}\n"
        "spec: {values: {pilot: {env: {BLOCKED_CIDRS_IN_JWKS_URIS: '" + networks + "'}}}}\n"
    )
    return tuple(load.parse([("istio.yaml", text)]).resources)


def warned(
    folder: Path, policies: tuple[Resource, ...], operators: tuple[Resource, ...] = ()
) -> list[str]:
    """The warnings about some policies after a push."""

    async def push() -> list[str]:
        snapshot = Snapshot((), (), {"RequestAuthentication": policies}, certificates=str(folder))
        async with httpx.AsyncClient(trust_env=False) as client:
            plane = ControlPlane(
                folder / "authority",
                lambda: snapshot,
                lambda: operators,
                lambda _pod, _reason: None,
                lambda: None,
                client,
                lambda _snapshot, _applied: (),
            )
            assert await plane.push(snapshot, {}) == []
            return plane.key_warnings(policies)

    # In a thread of its own: a browser test may have left a running event loop in this one.
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(lambda: asyncio.run(push())).result()


def test_keys_that_arrive_are_no_news(issuer: str, tmp_path: Path) -> None:
    assert warned(tmp_path, policy(issuer="a@b", jwksUri=f"{issuer}/keys")) == []
    assert warned(tmp_path, policy(issuer=issuer)) == []


def test_why_keys_are_missing_is_said_with_the_line_that_asks_for_them(
    issuer: str, tmp_path: Path
) -> None:
    (line,) = warned(tmp_path, policy(issuer="a@b", jwksUri=f"{issuer}/nowhere"))
    assert line == (
        "jwt.yaml:8: RequestAuthentication jwt: spec.jwtRules[0].jwksUri: keys not fetched: "
        f"{issuer}/nowhere: answered 404; tokens that need these keys are refused"
    )
    (line,) = warned(tmp_path, policy(issuer="a@b", jwksUri=f"{issuer}/empty"))
    assert "no usable key in the answer" in line
    (line,) = warned(tmp_path, policy(issuer="http://127.0.0.1:9"))
    assert line.startswith("jwt.yaml:7: ")
    assert "http://127.0.0.1:9/.well-known/openid-configuration: " in line


@pytest.mark.parametrize("network", ["127.0.0.0/8", "10.0.0.0/8, 127.0.0.1"])
def test_no_keys_are_fetched_from_a_blocked_network(
    issuer: str, tmp_path: Path, network: str
) -> None:
    uri = f"{issuer}/keys"
    (line,) = warned(tmp_path, policy(issuer="a@b", jwksUri=uri), blocking(network))
    assert "127.0.0.1 is in 127.0.0." in line
    assert "which BLOCKED_CIDRS_IN_JWKS_URIS bars" in line
    assert warned(tmp_path, policy(issuer="a@b", jwksUri=uri), blocking("169.254.0.0/16")) == []
    name = uri.replace("127.0.0.1", "localhost")
    (line,) = warned(tmp_path, policy(issuer="a@b", jwksUri=name), blocking(network + ",::1/128"))
    assert "is in" in line


@pytest.mark.parametrize(
    ("address", "what"),
    [
        ("169.254.169.254", "link-local"),
        ("[fe80::1]", "link-local"),
        ("[::ffff:169.254.0.1]", "link-local"),
        ("224.0.0.1", "link-local"),
        ("100.100.100.200", "a cloud's metadata"),
        ("[fd00:ec2::254]", "a cloud's metadata"),
    ],
)
def test_no_keys_are_fetched_from_where_machines_are_configured(
    tmp_path: Path, address: str, what: str
) -> None:
    """As istiod since 1.31.1, whatever the variable says."""
    uri = f"http://{address}/keys"
    for operators in ((), blocking(""), blocking("10.0.0.0/8")):
        (line,) = warned(tmp_path, policy(issuer="a@b", jwksUri=f'"{uri}"'), operators)
        assert f" is {what}: no keys are fetched from there" in line


def test_the_last_operator_that_blocks_holds(issuer: str, tmp_path: Path) -> None:
    policies = policy(issuer="a@b", jwksUri=f"{issuer}/keys")
    both = (*blocking("127.0.0.0/8"), *blocking(""))
    assert warned(tmp_path, policies, both) == []
    assert len(warned(tmp_path, policies, both[::-1])) == 1


def test_what_is_no_network_is_refused() -> None:
    with pytest.raises(ManifestError, match=r"BLOCKED_CIDRS.*'10\.0\.0\.0/99' does not appear"):
        blocking("10.0.0.0/99")
