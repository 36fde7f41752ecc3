"""Files of a package stay together, and what they share is started and ended once for each process."""

import subprocess
import sys
from collections import Counter, defaultdict
from pathlib import Path

ROOT = Path(__file__).parents[3]
CONFTEST = """
from tests.scheduling import ByPackage

def pytest_xdist_make_scheduler(config, log):
    return ByPackage(config, log)
"""
SHARED = """
import os, pytest
from pathlib import Path

def note(what):
    with Path(os.environ["NOTES"]).open("a") as file:
        file.write(f"{os.environ['PYTEST_XDIST_WORKER']} {what}\\n")

@pytest.fixture(scope="package", autouse=True)
def shared():
    note("+NAME")
    yield
    note("-NAME")
"""
FILE = """
import os, time
from pathlib import Path
import pytest

@pytest.mark.parametrize("n", range(3))
def test(n):
    time.sleep(0.02)
    with Path(os.environ["NOTES"]).open("a") as file:
        file.write(f"{os.environ['PYTEST_XDIST_WORKER']} NAME/FILE\\n")
"""


def test_files_of_a_package_stay_together(tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text(CONFTEST)
    files = {"large": 9, "middle": 5, "small": 2, "loose": 6}
    for name, count in files.items():
        (tmp_path / name).mkdir()
        if name != "loose":
            (tmp_path / name / "__init__.py").touch()
            (tmp_path / name / "conftest.py").write_text(SHARED.replace("NAME", name))
        for n in range(count):
            text = FILE.replace("NAME", name).replace("FILE", str(n))
            (tmp_path / name / f"test_{n}.py").write_text(text)
    argv = [sys.executable, "-m", "pytest", "-n2", "-q", "-p", "no:cacheprovider", "--import-mode=importlib"]
    env = {"PYTHONPATH": f"{ROOT}:{ROOT / 'gen'}", "PATH": "/usr/bin:/bin", "NOTES": str(tmp_path / "notes")}
    done = subprocess.run([*argv, f"--rootdir={tmp_path}"], cwd=tmp_path, env=env, capture_output=True, text=True)
    assert f"{3 * sum(files.values())} passed" in done.stdout, done.stdout + done.stderr

    seen: dict[str, list[str]] = defaultdict(list)
    for line in (tmp_path / "notes").read_text().splitlines():
        process, what = line.split()
        seen[process].append(what)
    assert len(seen) == 2
    ran = Counter(what for notes in seen.values() for what in notes if "/" in what)
    assert set(ran.values()) == {3}
    assert {notes[0] for notes in seen.values()} == {"+large", "+middle"}
    for notes in seen.values():
        for name in ("large", "middle", "small"):
            at = [n for n, what in enumerate(notes) if what.strip("+-").partition("/")[0] == name]
            if at:
                assert at == list(range(at[0], at[-1] + 1)), notes
                assert (notes.count(f"+{name}"), notes[at[0]], notes[at[-1]]) == (1, f"+{name}", f"-{name}")
