"""Judging answers: what passes, and what a person reads when it doesn't."""

from __future__ import annotations

import datetime

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from lab.exercises.check import differences, verdict
from lab.exercises.format import Expect, Match
from lab.exercises.traffic import Answer, parse_certificate

PAGE = Answer(
    status=200,
    headers={"x-ui-version": "2.0"},
    body="<style>x{}</style><p>Hello Test from pod-1 with 1.0</p>",
    seconds=5.01,
)


@pytest.mark.parametrize(
    ("match", "seen"),
    [
        ({"status": 200, "text": "Hello Test"}, None),
        ({"status": [200, 303]}, None),
        ({"status": 404}, "status 200"),
        ({"headers": {"X-UI-Version": "2.0"}}, None),
        ({"headers": {"x-ui-version": "/^2/"}}, None),
        ({"headers": {"x-ui-version": "1.0"}}, "2.0"),
        ({"headers": {"x-other": "1"}}, "no header x-other"),
        ({"no_headers": "x-ui-version"}, "2.0"),
        ({"text": "/from pod-\\d with/"}, None),
        ({"text": "Unable to connect"}, "Hello Test from pod-1 with 1.0"),
        ({"no_text": "Hello"}, "it is there"),
        ({"takes_at_least": "5s", "takes_less_than": "6s"}, None),
        ({"takes_less_than": "5s"}, "5.010 s"),
        ({"takes_at_least": "6s"}, "5.010 s"),
        ({"exit": 0}, None),
        ({"exit": [7, 56]}, "200 from version 2.0"),
    ],
)
def test_a_page(match: dict[str, object], seen: str | None) -> None:
    found = differences(Match.model_validate(match), PAGE)
    assert [d.seen for d in found] == (
        [seen] if seen and not seen.startswith("status") else []
    ) or (seen is not None and found[0].seen.startswith(seen))


def test_no_answer_is_no_status() -> None:
    refused = Answer(exit=7, error="curl: (7) could not connect")
    assert not differences(Match.model_validate({"exit": 7}), refused)
    (wrong,) = differences(Match.model_validate({"status": 200}), refused)
    assert wrong.seen == "curl: (7) could not connect"


def test_json_by_path() -> None:
    answer = Answer(status=200, body='{"a": [{"b": "1.0"}]}')
    assert not differences(Match.model_validate({"json": {"a.0.b": "1.0"}}), answer)
    (wrong,) = differences(Match.model_validate({"json": {"a.1.b": "1.0"}}), answer)
    assert wrong.seen == "None"


@pytest.mark.parametrize(("body", "is_open"), [("+PONG\r\n", True), ("", False)])
def test_a_connection_is_open_when_the_server_speaks(body: str, is_open: bool) -> None:
    answer = Answer(body=body)
    assert not differences(Match.model_validate({"open": is_open}), answer)
    assert differences(Match.model_validate({"open": not is_open}), answer)


def answers(golden: int, of: int) -> list[Answer]:
    version = ["2.0"] * golden + ["1.0"] * (of - golden)
    return [Answer(status=200, headers={"x-ui-version": v}) for v in version]


def shares(expected: object) -> Expect:
    share = {"of": {"headers": {"x-ui-version": "2.0"}}, "expected": expected}
    return Expect.model_validate({"shares": [share]})


@pytest.mark.parametrize(("golden", "fits"), [(160, True), (128, True), (127, False), (188, False)])
def test_a_share_has_the_bounds_it_says(golden: int, fits: bool) -> None:
    judged = verdict(shares(0.8), answers(golden, 200), lambda share: float(str(share.expected)))
    assert (not judged.bad) == fits
    if not fits:
        assert "128 to 187 of 200" in judged.bad[0].expected
        assert f"200 from version 2.0 ×{golden}" in judged.bad[0].seen


def test_counts_and_their_words() -> None:
    expect = Expect.model_validate({"counts": [{"of": {"status": 429}, "exactly": 10}]})
    many = [Answer(status=200)] * 11 + [Answer(status=429)] * 9
    (wrong,) = verdict(expect, many, lambda _: 0).bad
    assert wrong.expected == "status 429: exactly 10 of 20"
    assert wrong.seen == "9; the answers were 200 ×11, 429 ×9"


def test_equal_differences_are_told_once() -> None:
    expect = Expect.model_validate({"answer": {"status": 200}})
    (wrong,) = verdict(expect, [Answer(status=503)] * 3 + [Answer(status=200)], lambda _: 0).bad
    assert wrong.seen == "status 503 (3 of 4 answers)"


def leaf(uri: str, days: int) -> str:
    key = ec.generate_private_key(ec.SECP256R1())
    now = datetime.datetime.now(datetime.UTC)
    issuer = x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, "cluster.local")])
    usages = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
    names = x509.SubjectAlternativeName([x509.UniformResourceIdentifier(uri)])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([]))
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now)
        .not_valid_after(now + datetime.timedelta(days=days))
        .add_extension(names, critical=True)
        .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
        .sign(key, hashes.SHA256())
    )
    return certificate.public_bytes(serialization.Encoding.PEM).decode()


MESSAGE = "spiffe://cluster.local/ns/default/sa/message-sa"


@pytest.mark.parametrize(
    ("match", "seen"),
    [
        ({"uri": MESSAGE, "issuer": "O=cluster.local", "empty_subject": True}, None),
        ({"usage": ["serverAuth", "clientAuth"], "lifetime_at_most": "25h"}, None),
        ({"uri": "spiffe://cluster.local/ns/default/sa/ui-sa"}, MESSAGE),
        ({"issuer": "O=elsewhere"}, "O=cluster.local"),
        ({"lifetime_at_most": "23h"}, "1 day, 0:00:00"),
    ],
)
def test_a_certificate_in_what_openssl_prints(match: dict[str, object], seen: str | None) -> None:
    text = f"CONNECTED(00000003)\n---\nCertificate chain\n 0 s:\n{leaf(MESSAGE, 1)}---\n"
    answer = Answer(body=text, certificate=parse_certificate(text))
    found = differences(Match.model_validate({"certificate": match}), answer)
    assert [d.seen for d in found] == ([seen] if seen else [])


def test_no_certificate_is_a_difference() -> None:
    answer = Answer(exit=1, error="connect: Connection refused")
    match = Match.model_validate({"certificate": {"uri": MESSAGE}})
    assert [d.seen for d in differences(match, answer)] == ["connect: Connection refused"]
