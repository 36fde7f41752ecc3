"""Where the installation's secrets come from: files that only their owner can read, the environment, Vault."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from services.common.sealing import Sealer, Unsealable, generate, named
from services.common.secrets.sources import SecretUnavailable, resolve
from services.common.secrets.vault import Transit, VaultSource, client
from services.common.secrets.wrapping import LocalWrapper, TransitWrapper, Wrapper
from services.common.settings import Settings, SettingsError, load
from services.common.signing import SigningKey
from tests.vault_server import ROOT, Vault, serving


@pytest.fixture(scope="module")
def vault() -> Iterator[Vault]:
    with serving() as made:
        made.secrets["secret/mercat/stripe"] = {"key": "sk_test_in_vault", "value": "by default"}
        made.secrets["kv/other"] = {"value": "elsewhere"}
        made.roles["mercat"] = "its secret"
        yield made


@pytest.fixture
def known(vault: Vault, monkeypatch: pytest.MonkeyPatch) -> Vault:
    """Vault, whose address and token are in the environment."""
    monkeypatch.setenv("VAULT_ADDR", vault.url)
    monkeypatch.setenv("VAULT_TOKEN", ROOT)
    return vault


def owned(path: Path, text: str, mode: int = 0o600) -> Path:
    path.write_text(text)
    path.chmod(mode)
    return path


def test_a_secret_is_where_it_is_said_to_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, known: Vault) -> None:
    monkeypatch.setenv("ELSEWHERE", "in a variable")
    file = owned(tmp_path / "secret", "in a file\n")
    said = {
        f"file:{file}": "in a file", "env:ELSEWHERE": "in a variable", "vault:mercat/stripe#key": "sk_test_in_vault",
        "vault:mercat/stripe": "by default", "vault:kv:other": "elsewhere", "itself": "itself", "": "",
        "a:b": "a:b", "postgresql://user:pw@host/db": "postgresql://user:pw@host/db", "file:///srv": "file:///srv",
    }  # fmt: skip
    assert {text: resolve(text) for text in said} == said


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o660, 0o622])
def test_a_file_that_others_can_read_is_none(tmp_path: Path, mode: int) -> None:
    file = owned(tmp_path / "secret", "hidden words", mode)
    with pytest.raises(SecretUnavailable, match="chmod 600") as refused:
        resolve(f"file:{file}")
    assert "hidden" not in str(refused.value)


@pytest.mark.parametrize(
    "text", ["file:/no/such/file", "env:NO_SUCH_VARIABLE", "vault:no/such#key", "vault:mercat/stripe#no"]
)
def test_what_is_nowhere_is_said_so(known: Vault, text: str) -> None:
    with pytest.raises(SecretUnavailable):
        resolve(text)


def test_settings_take_the_place_for_the_secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = owned(tmp_path / "token", "an internal token\n")
    monkeypatch.setenv("MERCAT_INTERNAL_TOKEN", f"file:{file}")
    assert load(Settings).internal_token == "an internal token"
    file.chmod(0o644)
    with pytest.raises(SettingsError, match=r"MERCAT_INTERNAL_TOKEN=file:.*chmod 600") as refused:
        load(Settings)
    assert "an internal token" not in str(refused.value)
    monkeypatch.setenv("MERCAT_ADMIN_EMAIL", "env:HOME")  # which is no secret, and so is itself
    monkeypatch.delenv("MERCAT_INTERNAL_TOKEN")
    assert load(Settings).admin_email == "env:HOME"


def test_vault_is_signed_in_to_by_token_file_or_role(vault: Vault, tmp_path: Path) -> None:
    at = {"VAULT_ADDR": vault.url}
    file = owned(tmp_path / "token", ROOT)
    for who in (
        {"VAULT_TOKEN": ROOT},
        {"VAULT_TOKEN_FILE": str(file)},
        {"VAULT_ROLE_ID": "mercat", "VAULT_SECRET_ID": "its secret"},
    ):
        assert VaultSource(client(at | who)).get("mercat/stripe#key") == "sk_test_in_vault"
    for who in ({}, {"VAULT_ROLE_ID": "mercat", "VAULT_SECRET_ID": "wrong words"}):
        with pytest.raises(SecretUnavailable) as refused:
            client(at | who)
        assert "wrong words" not in str(refused.value)
    with pytest.raises(SecretUnavailable):
        VaultSource(client(at | {"VAULT_TOKEN": "hvs.nobody"})).get("mercat/stripe#key")
    with pytest.raises(SecretUnavailable):
        VaultSource(client({"VAULT_ADDR": "http://127.0.0.1:9", "VAULT_TOKEN": ROOT})).get("mercat/stripe#key")


@pytest.fixture(params=["local", "transit"])
def wrapper(request: pytest.FixtureRequest, vault: Vault, tmp_path: Path) -> Wrapper:
    if request.param == "local":
        return LocalWrapper(Sealer.load("", tmp_path / "sealing.key"))
    vault.keys["mercat"] = [os.urandom(32)]
    return TransitWrapper(Transit(client({"VAULT_ADDR": vault.url, "VAULT_TOKEN": ROOT}), "mercat"))


async def test_what_is_wrapped_is_unwrapped_where_it_belongs(wrapper: Wrapper) -> None:
    wrapped = await wrapper.wrap(b"k" * 32, "data-key/usr_1/1")
    assert b"k" * 32 not in wrapped
    assert await wrapper.unwrap(wrapped, "data-key/usr_1/1") == b"k" * 32
    with pytest.raises(Unsealable):
        await wrapper.unwrap(wrapped, "data-key/usr_2/1")


async def test_a_rotated_transit_key_unwraps_what_it_wrapped_before(vault: Vault) -> None:
    vault.keys["turns"] = [os.urandom(32)]
    transit = Transit(client({"VAULT_ADDR": vault.url, "VAULT_TOKEN": ROOT}), "turns")
    wrapper = TransitWrapper(transit)
    before, wrapped = await wrapper.under(), await wrapper.wrap(b"key", "a")
    transit.rotate()
    assert await wrapper.under() != before
    assert await wrapper.unwrap(wrapped, "a") == b"key"
    assert await wrapper.wrap(b"key", "a") != wrapped


def test_a_sealer_takes_up_what_is_added_to_its_file(tmp_path: Path) -> None:
    path = tmp_path / "sealing.key"
    long_running = Sealer.load("", path)
    old = path.read_text().strip()
    sealed = long_running.seal(b"x", "a")
    owned(path, f"{generate()},{old}\n")
    other = Sealer.load("", path)
    assert long_running.open(other.seal(b"y", "a"), "a") == b"y"
    assert long_running.newest == other.newest == next(iter(named(path.read_text().strip())))
    assert other.open(sealed, "a") == b"x"
    path.chmod(0o644)
    with pytest.raises(SettingsError, match="chmod 600"):
        Sealer.load("", path)


def test_a_signing_key_that_others_can_read_is_none(tmp_path: Path) -> None:
    path = tmp_path / "jwt.pem"
    made = SigningKey.load(path)
    assert SigningKey.load(path).kid == made.kid
    path.chmod(0o640)
    for load_it in (SigningKey.load, SigningKey.load_all):
        with pytest.raises(SecretUnavailable, match="chmod 600"):
            load_it(path)
