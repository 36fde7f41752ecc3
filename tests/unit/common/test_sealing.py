"""What is sealed opens only where it belongs, under keys that are known."""

import base64
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from services.common.sealing import Sealer, Unsealable
from services.common.settings import SettingsError


def key() -> str:
    return base64.b64encode(os.urandom(32)).decode()


def test_what_is_sealed_opens_where_it_belongs_and_nowhere_else(tmp_path: Path) -> None:
    sealer = Sealer.load(key(), tmp_path / "none")
    sealed = sealer.seal(b"a secret", "totp:usr_1")
    assert b"a secret" not in sealed
    assert sealer.seal(b"a secret", "totp:usr_1") != sealed
    assert sealer.open(sealed, "totp:usr_1") == b"a secret"
    with pytest.raises(Unsealable):
        sealer.open(sealed, "totp:usr_2")
    for at in range(len(sealed)):
        altered = sealed[:at] + bytes([sealed[at] ^ 1]) + sealed[at + 1 :]
        with pytest.raises(Unsealable):
            sealer.open(altered, "totp:usr_1")
    with pytest.raises(Unsealable):
        sealer.open(b"", "totp:usr_1")


def test_a_key_is_replaced_by_putting_another_before_it(tmp_path: Path) -> None:
    old, new = key(), key()
    sealed = Sealer.load(old, tmp_path / "none").seal(b"x", "a")
    both = Sealer.load(f"{new}, {old}", tmp_path / "none")
    assert both.open(sealed, "a") == b"x"
    again = both.seal(b"x", "a")
    assert Sealer.load(new, tmp_path / "none").open(again, "a") == b"x"
    with pytest.raises(Unsealable, match="MERCAT_SEALING_KEYS"):
        Sealer.load(old, tmp_path / "none").open(again, "a")


def test_processes_that_start_at_once_share_one_key_of_the_home(tmp_path: Path) -> None:
    path = tmp_path / "secrets" / "sealing.key"
    with ThreadPoolExecutor(8) as pool:
        sealers = list(pool.map(lambda _: Sealer.load("", path), range(8)))
    sealed = sealers[0].seal(b"x", "a")
    assert {sealer.open(sealed, "a") for sealer in sealers} == {b"x"}
    assert path.stat().st_mode & 0o777 == 0o600
    assert [p.name for p in path.parent.iterdir()] == ["sealing.key"]


@pytest.mark.parametrize("text", ["short", base64.b64encode(b"x" * 16).decode(), "%%%", f"{'A' * 44},", "AAAA,AAAA"])
def test_what_is_no_key_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(SettingsError, match="MERCAT_SEALING_KEYS"):
        Sealer.load(text, tmp_path / "none")
