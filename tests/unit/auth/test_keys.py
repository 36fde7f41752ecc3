"""Keys and tokens are what they say, and nothing near them is."""

import os
import tempfile
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path

import jwt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.auth import keys
from services.auth.scopes import BY_ROLE
from services.auth.tokens import LIFETIME, Proof, Signer
from services.common.errors import CredentialInvalid

_SECRET = keys.generate(test=False)
PROOF = Proof("usr_1", "ses_1", datetime(2029, 12, 31, tzinfo=UTC), second_factor=True)


@pytest.mark.parametrize("test", [False, True])
def test_a_generated_key_is_well_formed(test: bool) -> None:
    made = {keys.generate(test=test) for _ in range(200)}
    assert len(made) == 200
    assert all(map(keys.well_formed, made))
    assert all(k.startswith("mk_test_" if test else "mk_live_") for k in made)


@given(st.integers(8, len(_SECRET) - 1), st.sampled_from("0123456789ABCXYZabcxyz_-é"))
def test_one_wrong_character_is_noticed(at: int, character: str) -> None:
    mistyped = _SECRET[:at] + character + _SECRET[at + 1 :]
    assert keys.well_formed(mistyped) == (mistyped == _SECRET)


@given(st.integers(8, len(_SECRET) - 2))
def test_two_swapped_characters_are_noticed(at: int) -> None:
    swapped = _SECRET[:at] + _SECRET[at + 1] + _SECRET[at] + _SECRET[at + 2 :]
    assert keys.well_formed(swapped) == (swapped == _SECRET)


@given(st.text())
def test_no_text_breaks_the_check(text: str) -> None:
    assert not keys.well_formed(text)
    assert not keys.well_formed("mk_live_" + text)


class Clock:
    def __init__(self) -> None:
        self.at = datetime(2030, 1, 1, tzinfo=UTC)

    def now(self) -> datetime:
        return self.at


def test_a_token_ends_by_the_clock(tmp_path: Path) -> None:
    clock = Clock()
    signer = Signer(tmp_path / "secrets" / "jwt.pem", clock, "mercat")  # type: ignore[arg-type]
    token, expires = signer.sign(PROOF)
    assert signer.check(token) == (PROOF, expires)
    clock.at += LIFETIME - timedelta(seconds=1)
    assert signer.check(token)[0] == PROOF
    clock.at += timedelta(seconds=1)
    with pytest.raises(CredentialInvalid):
        signer.check(token)


def test_the_key_is_kept_and_is_the_owners_alone(tmp_path: Path) -> None:
    path = tmp_path / "jwt.pem"
    token, _ = Signer(path, Clock(), "mercat").sign(PROOF)  # type: ignore[arg-type]
    assert path.stat().st_mode & 0o777 == 0o600
    assert Signer(path, Clock(), "mercat").check(token)[0] == PROOF  # type: ignore[arg-type]
    with pytest.raises(CredentialInvalid):
        Signer(tmp_path / "other.pem", Clock(), "mercat").check(token)  # type: ignore[arg-type]


def test_a_key_is_replaced_by_putting_another_before_it(tmp_path: Path) -> None:
    old, new, both = (tmp_path / name for name in ("old.pem", "new.pem", "both.pem"))
    before, after = (Signer(path, Clock(), "mercat") for path in (old, new))  # type: ignore[arg-type]
    both.touch(mode=0o600)
    both.write_bytes(new.read_bytes() + old.read_bytes())
    signer = Signer(both, Clock(), "mercat")  # type: ignore[arg-type]
    assert signer.check(before.sign(PROOF)[0])[0] == PROOF
    token, _ = signer.sign(PROOF)
    assert after.check(token)[0] == PROOF
    with pytest.raises(CredentialInvalid):
        before.check(token)
    assert [key.kid for key in signer.keys] == [after.keys[0].kid, before.keys[0].kid]


def test_a_file_of_keys_is_read_again_when_it_changes(tmp_path: Path) -> None:
    path, next_path = tmp_path / "jwt.pem", tmp_path / "next.pem"
    signer = Signer(path, Clock(), "https://ai.example")  # type: ignore[arg-type]
    before, old = signer.sign(PROOF)[0], path.read_bytes()
    other = Signer(next_path, Clock(), "https://ai.example")  # type: ignore[arg-type]
    # Published first, signing later, and then alone.
    path.write_bytes(old + next_path.read_bytes())
    os.utime(path, ns=(1, 1))
    assert [key.kid for key in signer.keys][1:] == [key.kid for key in other.keys]
    path.write_bytes(b"half a fi")
    os.utime(path, ns=(2, 2))
    assert len(signer.keys) == 2
    path.write_bytes(next_path.read_bytes() + old)
    os.utime(path, ns=(3, 3))
    assert other.check(signer.sign(PROOF)[0])[0] == PROOF
    assert signer.check(before)[0] == PROOF
    path.write_bytes(next_path.read_bytes())
    os.utime(path, ns=(4, 4))
    with pytest.raises(CredentialInvalid):
        signer.check(before)


@given(st.text())
def test_no_text_breaks_a_signer(text: str) -> None:
    with pytest.raises(CredentialInvalid):
        _signer().check(text)


@cache
def _signer() -> Signer:
    return Signer(Path(tempfile.mkdtemp()) / "jwt.pem", Clock(), "mercat")  # type: ignore[arg-type]


def test_the_published_key_checks_tokens() -> None:
    signer = _signer()
    found = signer.keys[0].public_jwk()
    key = jwt.PyJWK({n: getattr(found, n) for n in ("kty", "crv", "kid", "use", "alg", "x")})
    options = {"verify_exp": False, "verify_iat": False}
    claims = jwt.decode(signer.sign(PROOF)[0], key, ["EdDSA"], options, audience="mercat", issuer="mercat")  # type: ignore[arg-type]
    assert claims["sub"] == "usr_1"


def test_each_role_can_do_all_that_the_lesser_can() -> None:
    consumer, publisher, admin = (BY_ROLE[role] for role in sorted(BY_ROLE))
    assert consumer < publisher < admin
