"""Folders of validations: gone afterwards, and after a process that could not say goodbye."""

import subprocess
import sys
from pathlib import Path

import pytest

from services.registry.scratch import scratch, sweep


def test_a_folder_is_gone_afterwards(tmp_path: Path) -> None:
    def broken() -> None:
        with scratch(tmp_path) as folder:
            (folder / "model.onnx").write_bytes(b"x")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        broken()
    assert list(tmp_path.iterdir()) == []


def test_what_is_in_use_stays(tmp_path: Path) -> None:
    other = tmp_path / "somebody-elses"
    other.mkdir()
    with scratch(tmp_path) as folder:
        assert sweep(tmp_path) == 0
        assert folder.is_dir()
    assert sweep(tmp_path) == 0
    assert other.is_dir()


def test_what_a_killed_process_left_is_removed(tmp_path: Path) -> None:
    code = (
        "import os, signal, sys; from pathlib import Path; from services.registry.scratch import scratch\n"
        "with scratch(Path(sys.argv[1])) as f:\n    (f / 'model.onnx').write_bytes(b'x')\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False, timeout=60)
    assert [p.name for p in tmp_path.glob("*/*")] == ["model.onnx"]
    assert sweep(tmp_path) == 1
    assert list(tmp_path.iterdir()) == []
