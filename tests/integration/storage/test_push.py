"""`mercat models push` that was killed goes on where it was."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from mercat.storage.v1 import storage_pb2 as s

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
