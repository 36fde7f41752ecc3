"""The unit tests of the pure money modules take every branch of them."""

import json
import os
import subprocess
import sys
from pathlib import Path

from tests.mutation import MODULES, ROOT, TESTS


def test_every_branch_of_the_pure_money_modules_is_taken(tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    # Not a part of the run that this is of.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    environment["COVERAGE_FILE"] = str(tmp_path / "coverage")
    for arguments in (
        ["run", "--branch", f"--include={','.join(MODULES)}", "-m", "pytest", "-q", "--hypothesis-profile=fixed",
         "-p", "no:cacheprovider", *TESTS],
        ["json", "-q", "-o", str(report)],
    ):  # fmt: skip
        done = subprocess.run(
            [sys.executable, "-m", "coverage", *arguments], cwd=ROOT, env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-1000:]
    files = json.loads(report.read_text())["files"]
    assert files.keys() == set(MODULES)
    assert {name: (f["missing_lines"], f["missing_branches"]) for name, f in files.items()} == dict.fromkeys(
        MODULES, ([], [])
    )
