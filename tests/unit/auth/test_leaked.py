"""Passwords that leaked are found, wherever in the list they stand, and no other."""

import asyncio
import hashlib
import logging
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.auth.signin.leaked import LeakedPasswords
from services.auth.signin.strength import Strength
from services.common.errors import InvalidFields


def written(path: Path, passwords: set[str], ending: str = "\r\n") -> Path:
    """A list as it is downloaded."""
    hashes = sorted(hashlib.sha1(p.encode()).hexdigest().upper() for p in passwords)
    path.write_bytes("".join(f"{h}:{n}{ending}" for n, h in enumerate(hashes)).encode())
    return path


@given(st.sets(st.text(max_size=8), max_size=30), st.text(max_size=8), st.sampled_from(["\n", "\r\n"]))
def test_what_is_in_the_file_is_found(
    tmp_path_factory: pytest.TempPathFactory, passwords: set[str], other: str, ending: str
) -> None:
    leaked = LeakedPasswords(written(tmp_path_factory.getbasetemp() / "leaked.txt", passwords, ending))
    bundled = LeakedPasswords()
    for password in passwords:
        assert leaked.has(password)
    assert leaked.has(other) == (other in passwords or bundled.has(other))


def test_a_long_list_is_searched_to_both_ends(tmp_path: Path) -> None:
    passwords = {f"a long enough one {n}" for n in range(5000)}
    leaked = LeakedPasswords(written(tmp_path / "leaked.txt", passwords))
    assert all(leaked.has(p) for p in passwords)
    assert not any(leaked.has(f"another one {n}") for n in range(2000))


def test_a_strong_password_that_leaked_is_refused(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def check(strength: Strength) -> None:
        await strength.check("otter ledger violin 42", ["ada"])

    asyncio.run(check(Strength(LeakedPasswords())))
    with pytest.raises(InvalidFields, match="leaked elsewhere"):  # of those that come along
        asyncio.run(Strength(LeakedPasswords()).check("QwertyUiop", ["ada"]))
    path = written(tmp_path / "leaked.txt", {"otter ledger violin 42"})
    with pytest.raises(InvalidFields, match="leaked elsewhere") as caught:
        asyncio.run(check(Strength(LeakedPasswords(path))))
    assert [v.field for v in caught.value.violations] == ["password"]
    path.unlink()
    with caplog.at_level(logging.ERROR):  # a list that is gone keeps nobody from signing up, and the operator is told
        asyncio.run(check(Strength(LeakedPasswords(path))))
    assert "cannot be read" in caplog.text
