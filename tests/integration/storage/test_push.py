"""`mercat models push` that was killed goes on where it was."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from mercat.storage.v1 import storage_pb2 as s

from tests.integration.registry.test_files import WEIGHTS
from tests.integration.registry.test_files import graph as several
from tests.platform import Account, Platform

SIZE = 256 * 1024**2  # bytes


def uploads(person: Account) -> list[s.Upload]:
    return list(person.storage.ListUploads(s.ListUploadsRequest()).uploads)


def test_a_killed_push_goes_on(platform: Platform, tmp_path: Path) -> None:
    person = platform.publisher()
    file = tmp_path / "model.onnx"
    file.write_bytes(os.urandom(1 << 20) * (SIZE >> 20))
    argv = [
        sys.executable, "-m", "services.cli.main", "models", "push", str(file), "--name", "large", "--version", "1.0.0",
        "--summary", "s", "--category", "other", "--task", "t", "--license", "MIT",
    ]  # fmt: skip
    env = platform.environment | {
        "MERCAT_SERVER": platform.grpc, "MERCAT_API_KEY": person.api_key, "MERCAT_CONFIG": str(tmp_path / "config"),
    }  # fmt: skip
    with subprocess.Popen(argv, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as push:
        while not (begun := uploads(person)) or begun[0].offset < 16 << 20:
            assert push.poll() is None
            time.sleep(0.01)
        push.send_signal(signal.SIGKILL)
    before = uploads(person)[0]
    assert before.state == s.Upload.STATE_OPEN
    assert 0 < before.offset < SIZE
    shown = subprocess.run(
        [*argv[:3], "uploads", "list"], env=env, capture_output=True, text=True, timeout=60, check=True
    ).stdout  # fmt: skip
    assert before.upload_id in shown
    again = subprocess.run(argv, env=env, capture_output=True, text=True, timeout=300, check=False)
    assert "NOT_ONNX" in again.stdout + again.stderr  # it arrived, and was looked at
    after = uploads(person)
    assert [(u.upload_id, u.state) for u in after] == [(before.upload_id, s.Upload.STATE_COMPLETE)]


def test_a_push_of_several_files(platform: Platform, tmp_path: Path) -> None:
    person = platform.publisher()
    files = {"large.onnx": several(), "w.bin": WEIGHTS.tobytes(), "CARD.md": b"# Adds\n"}
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    env = {"MERCAT_SERVER": platform.grpc, "MERCAT_API_KEY": person.api_key}
    pushed = platform.command(
        "models", "push", str(tmp_path / "large.onnx"), "--data", str(tmp_path / "w.bin"), "--version-card",
        str(tmp_path / "CARD.md"), "--name", "several", "--version", "1.0.0", "--summary", "s", "--category", "other",
        "--task", "t", "--license", "MIT", **env,
    )  # fmt: skip
    assert pushed.returncode == 0, pushed.stderr
    shown = platform.command("models", "show", f"{person.profile.username}/several@1.0.0", **env).stdout
    assert "w.bin" in shown
    assert "Add 1" in shown
    got = tmp_path / "got.bin"
    back = platform.command(
        "models", "download", "several@1.0.0", "--file", "w.bin", "--to", str(got), **env
    )  # fmt: skip
    assert back.returncode == 0, back.stderr
    assert got.read_bytes() == files["w.bin"]
