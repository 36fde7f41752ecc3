"""What keeps `mercat up` from starting: one sentence with the way out, a failing exit status, nothing left running."""

import errno
import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest

from services.embedded.errors import StartError
from services.embedded.home import LAYOUT, Home
from services.embedded.ports import free_ports
from services.embedded.preflight import check_platform, check_ports
from services.embedded.server import write_private

ROOT = Path(__file__).parents[3]


def mercat(*arguments: str, home: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    mine = {"MERCAT_HOME": str(home), "MERCAT_PORT": str(free_ports(1)[0]), "NO_COLOR": "1", "COLUMNS": "200"}
    return subprocess.run(
        [sys.executable, "-m", "services.cli.main", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        cwd=ROOT,
        env={**os.environ, **mine, **variables},
    )


def refused(done: subprocess.CompletedProcess[str], *words: str) -> None:
    assert done.returncode == 1, done
    sentence = done.stderr.strip()
    assert sentence.startswith("mercat: ")
    assert "Traceback" not in sentence
    assert sentence.count("\n") == 0, sentence
    for word in words:
        assert word in sentence


def nothing_runs(home: Path) -> None:
    for process in psutil.process_iter(["cmdline"]):
        assert str(home) not in " ".join(process.info["cmdline"] or [])


@pytest.mark.parametrize("arguments", [["up"], ["up", "--detach"]])
@pytest.mark.parametrize("offset", [0, 443])
def test_port_taken(tmp_path: Path, arguments: list[str], offset: int) -> None:
    port = free_ports(1)[0]
    with socket.create_server(("127.0.0.1", port + offset)):
        done = mercat(*arguments, "--port", str(port), home=tmp_path / "home")
    refused(done, f"Port {port + offset}", "is taken", "--port")
    nothing_runs(tmp_path)


def test_home_is_not_writable(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for arguments in (["up"], ["up", "--detach"]):
        refused(mercat(*arguments, home=tmp_path / "file" / "home"), "cannot be written", "--home")


def test_home_of_somebody_else_s_files(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("")
    refused(mercat("up", home=tmp_path), "thesis.tex", "--home")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run", "thesis.tex"]


def test_home_of_a_newer_version(tmp_path: Path) -> None:
    write_private(tmp_path / "version.json", json.dumps({"layout": LAYOUT + 1}))
    refused(mercat("up", home=tmp_path), "newer Mercat", "update Mercat", "--home")
    nothing_runs(tmp_path)


def test_disk_full(tmp_path: Path) -> None:
    done = mercat("up", home=tmp_path / "home", MERCAT_MIN_FREE_MB=str(2**40))
    refused(done, "MiB free", "free some space", "--home")
    nothing_runs(tmp_path)


def test_disk_so_full_that_nothing_can_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*arguments: Any) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(StartError, match="is full; free some space"):
        Home(tmp_path / "home").open(min_free_mb=0)


def test_home_in_use(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    home.open(min_free_mb=0)
    try:
        refused(mercat("up", home=home.path), "already", "mercat status", "mercat down")
        assert home.owner() == os.getpid()
    finally:
        home.close()
    assert home.owner() is None


def test_wrong_settings(tmp_path: Path) -> None:
    refused(mercat("up", home=tmp_path, MERCAT_PORT="eighty"), "MERCAT_PORT=eighty")
    refused(mercat("up", home=tmp_path, MERCAT_POSTGRES_URL="postgresql://127.0.0.1:1/x"), "MERCAT_POSTGRES_URL")
    nothing_runs(tmp_path)


def test_platform() -> None:
    check_platform()
    check_platform("Darwin", "arm64", (3, 13))
    with pytest.raises(StartError, match=r"do not exist for Windows on x86_64.*WSL 2"):
        check_platform("Windows", "AMD64", (3, 12))
    with pytest.raises(StartError, match="for Linux on riscv64"):
        check_platform("Linux", "riscv64", (3, 12))
    with pytest.raises(StartError, match=r"Python 3\.11 or newer and this is 3\.10"):
        check_platform("Linux", "x86_64", (3, 10))


def test_address_of_another_machine() -> None:
    with pytest.raises(StartError, match="is not an address of this machine; correct MERCAT_HOST"):
        check_ports("192.0.2.77", 8000, None)


def test_status_logs_and_down_without_a_mercat(tmp_path: Path) -> None:
    done = mercat("status", home=tmp_path / "home")
    assert (done.returncode, "does not run" in done.stdout) == (1, True)
    assert json.loads(mercat("status", "--json", home=tmp_path / "home").stdout)["phase"] == "down"
    done = mercat("down", home=tmp_path / "home")
    assert (done.returncode, "does not run" in done.stdout) == (0, True)
    refused(mercat("logs", home=tmp_path / "home"), "no logs", "mercat up")
    assert not (tmp_path / "home").exists()


def test_config_names_values_sources_and_mistakes(tmp_path: Path) -> None:
    write_private(tmp_path / "mercat.toml", "workers = 3\n")
    variables = {
        "MERCAT_POSTGRES_URL": "postgresql://me:hidden@db/x",
        "MERCAT_PROT": "1",
        "MERCAT_INTERNAL_TOKEN": "hush",
    }
    done = mercat("config", "--json", home=tmp_path, **variables)
    assert done.returncode == 0, done.stderr
    assert "hidden" not in done.stdout
    assert "hush" not in done.stdout
    document = json.loads(done.stdout)
    rows = {row["env"]: row for row in document["settings"]}
    assert (rows["MERCAT_WORKERS"]["value"], rows["MERCAT_WORKERS"]["source"]) == ("3", "home")
    assert rows["MERCAT_HOME"]["source"] == "environment"
    assert (rows["MERCAT_HOST"]["value"], rows["MERCAT_HOST"]["source"]) == ("127.0.0.1", "default")
    assert rows["MERCAT_POSTGRES_URL"]["value"] == "postgresql://***@db/x"
    assert rows["MERCAT_MIN_FREE_MB"]["unit"] == "MiB"
    assert all(row["description"] for row in rows.values())
    assert document["warnings"] == ["MERCAT_PROT is set, and no setting has that name"]
    wrong = mercat("config", home=tmp_path, MERCAT_WORKERS="-1")
    assert wrong.returncode == 1
    assert "MERCAT_WORKERS=-1" in wrong.stdout
