"""Where commands go and what they keep."""

import json
import stat
from pathlib import Path

import pytest

from services.cli.session import Login, Logins, Refusal, find_target, name_of, parse_server

LOGIN = Login("ada@example.com", "ada", "access", 1.0, "refresh", 2.0)


@pytest.fixture
def logins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Logins:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("MERCAT_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("MERCAT_CA", raising=False)
    return Logins()


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("127.0.0.1:8000", "http://127.0.0.1:8000"),
        ("localhost:9", "http://localhost:9"),
        ("[::1]:8000", "http://[::1]:8000"),
        ("http://10.0.0.1:80/", "http://10.0.0.1:80"),
        ("https://mercat.example", "https://mercat.example:443"),
        ("https://[::1]", "https://[::1]:443"),
        ("https://mercat.example:8443/", "https://mercat.example:8443"),
        ("mercat.example:8443", "https://mercat.example:8443"),  # never in the clear over a network unless asked
    ],
)
def test_servers(text: str, name: str) -> None:
    assert name_of(parse_server(text)) == name


@pytest.mark.parametrize("text", ["", "host", ":80", "host:port", "ftp://host:1", "host:0", "host:65536"])
def test_no_servers(text: str) -> None:
    with pytest.raises(Refusal, match="is no server address"):
        parse_server(text)


def test_logins_are_kept_for_their_owner_alone(logins: Logins) -> None:
    with logins.locked():
        logins.put("default", "http://a:1", LOGIN)
        logins.put("admin", "http://a:1", LOGIN)
    assert logins.get("default", "http://a:1") == LOGIN
    assert logins.get("default", "http://b:1") is None
    assert stat.S_IMODE(logins.path.stat().st_mode) == 0o600
    assert stat.S_IMODE(logins.path.parent.stat().st_mode) == 0o700
    with logins.locked():
        logins.put("default", "http://a:1", None)
    assert logins.get("default", "http://a:1") is None
    assert logins.get("admin", "http://a:1") == LOGIN


def test_a_broken_file_of_logins_says_what_to_do(logins: Logins) -> None:
    logins.path.parent.mkdir(parents=True)
    logins.path.write_text("{")
    with pytest.raises(Refusal) as refused:
        logins.get("default", "x")
    assert "delete it" in refused.value.hint


def test_where_to(logins: Logins, tmp_path: Path) -> None:
    assert name_of(find_target("", "", logins)) == "http://127.0.0.1:8000"
    with logins.locked():
        logins.put("default", "https://far:443", LOGIN)
        logins.put("work", "https://work:443", LOGIN)
    assert name_of(find_target("", "", logins)) == "https://far:443"
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "connection.json").write_text(json.dumps({"grpc": "127.0.0.1:9000"}))
    assert name_of(find_target("", "", logins)) == "http://127.0.0.1:9000"
    assert name_of(find_target("", "work", logins)) == "https://work:443"
    assert name_of(find_target("127.0.0.1:1", "work", logins)) == "http://127.0.0.1:1"
