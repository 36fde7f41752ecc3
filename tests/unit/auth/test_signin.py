"""Codes, passwords and whom failures are counted of."""

import base64
from datetime import UTC, datetime

import pytest

from services.auth import codes
from services.auth.mfa import totp
from services.auth.signin import lockout, strength

# RFC 6238, appendix B: seconds since 1970 and the last six of its eight digits, SHA-1.
SECRET = base64.b32encode(b"12345678901234567890").decode()
VECTORS = [
    (59, "287082"), (1111111109, "081804"), (1111111111, "050471"), (1234567890, "005924"), (2000000000, "279037"),
    (20000000000, "353130"),
]  # fmt: skip


@pytest.mark.parametrize(("seconds", "code"), VECTORS)
def test_codes_are_those_of_the_rfc(seconds: int, code: str) -> None:
    now = datetime.fromtimestamp(seconds, UTC)
    step = seconds // 30
    assert totp.step_of(SECRET, code, now, 0) == step
    assert totp.step_of(SECRET, code, now, step - 1) == step
    assert totp.step_of(SECRET, code, now, step) is None


def test_a_code_is_good_for_a_step_on_either_side_and_never_older_than_one_before() -> None:
    for seconds, good in ((59, True), (89, True), (119, False), (30, True)):
        now = datetime.fromtimestamp(seconds, UTC)
        assert (totp.step_of(SECRET, "287082", now, 0) == 1) == good, seconds
    assert totp.step_of(SECRET, "287082", datetime.fromtimestamp(89, UTC), 2) is None
    for wrong in ("000000", "", "28708", "2870820", "２８７０８２"):
        assert totp.step_of(SECRET, wrong, datetime.fromtimestamp(59, UTC), 0) is None


def test_an_app_is_told_whose_account_it_is() -> None:
    assert (
        totp.uri(SECRET, "ada@example.com") == f"otpauth://totp/Mercat:ada%40example.com?secret={SECRET}&issuer=Mercat"
    )
    assert len({totp.generate() for _ in range(100)}) == 100
    assert len(base64.b32decode(totp.generate())) == 20


def test_codes_are_read_as_people_type_them() -> None:
    code = codes.generate()
    assert len(code) == 19
    for typed in (code.upper(), code.replace("-", ""), code.replace("-", " "), f" {code} ", code.replace("0", "O")):
        assert codes.digest(typed) == codes.digest(code)
    assert codes.digest("1") == codes.digest("l") == codes.digest("I")
    assert len({codes.generate() for _ in range(1000)}) == 1000


@pytest.mark.parametrize(
    ("password", "why"),
    [
        ("password1234", "easy to guess"), ("qwertyuiop", "easy to guess"), ("1234567890", "easy to guess"),
        ("aaaaaaaaaaaaaaaa", "easy to guess"), ("ada-lovelace-1815", "your name"),
        ("mercat12345", "Mercat"), ("AdaLovelace!Ada", "your name"),
        ("Password123!", "easy to guess"),
    ],
)  # fmt: skip
def test_what_can_be_guessed_is_told_with_what_to_do(password: str, why: str) -> None:
    problem = strength.weakness(password, ["ada.lovelace@example.com", "ada-lovelace", "Ada Lovelace"])
    assert why in problem
    assert "hoose" in problem or "." in problem


@pytest.mark.parametrize(
    "password",
    [
        "correct horse battery staple",
        "gT5#kQ9!vB2m",
        "otter ledger violin",
        "é ✓ ungewöhnlich genug",
        "x" * 10 + "9Qz!rW4k",
    ],
)
def test_what_cannot_be_guessed_is_good(password: str) -> None:
    assert strength.weakness(password, ["ada@example.com", "ada"]) == ""


def test_the_longest_password_is_judged_quickly() -> None:
    assert strength.weakness("correct horse battery staple " * 8, ["a" * 254]) == ""


def test_failures_are_counted_by_account_and_by_network() -> None:
    assert lockout.account("Ada@Example.com ") == lockout.account("ada@example.com")
    assert "ada" not in lockout.account("ada@example.com").key
    one, same, other = (
        lockout.network(text, 20) for text in ("2001:db8:1:2::1", "2001:db8:1:2:ffff::9", "2001:db8:1:3::1")
    )
    assert one == same != other
    assert lockout.network("::ffff:192.0.2.1", 20) == lockout.network("192.0.2.1", 20)
    assert lockout.network("local", 20) is None
