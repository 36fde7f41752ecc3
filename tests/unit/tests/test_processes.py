"""What tests start ends with them."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

ROOT = Path(__file__).parents[3]
ENDLESS = """
import signal, time
from threading import Thread
from tests import processes

signal.signal(signal.SIGINT, signal.default_int_handler)  # whatever these tests are run by
signal.signal(signal.SIGHUP, signal.SIG_DFL)

def test_endless():
    def start():
        child = processes.start(["/bin/sleep", "600"])
        print(child.pid, flush=True)
    thread = Thread(target=start)
    thread.start()
    thread.join()
    time.sleep(600)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel of Linux ends them")
@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGKILL], ids=lambda s: s.name)
def test_a_process_ends_with_the_tests_and_not_with_its_thread(end: signal.Signals, tmp_path: Path) -> None:
    (tmp_path / "test_endless.py").write_text(ENDLESS)
    argv = [
        sys.executable,
        "-m",
        "pytest",
        "-s",
        "-q",
        "-p",
        "no:cacheprovider",
        f"--rootdir={tmp_path}",
        str(tmp_path),
    ]
    env = {"PYTHONPATH": f"{ROOT}:{ROOT / 'gen'}", "PATH": "/usr/bin:/bin"}
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, env=env, cwd=tmp_path) as tests:
        assert tests.stdout is not None
        number = next(int(line) for line in tests.stdout if line.strip().isdigit())
        child = psutil.Process(number)
        time.sleep(0.2)
        assert child.is_running()
        tests.send_signal(end)
        try:
            child.wait(20)
        finally:
            tests.kill()
