"""Mutation tests by mutmut: does a test fail for every small change of the pure money modules? `python -m
tests.mutation [services/billing/ledger.py …]`: of all that pyproject.toml lists, or of these.
docs/decisions/0036-mutation-tests.md says what counts."""

import os
import shutil
import subprocess
import sys
import tomllib
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).parent.parent
MUTMUT = Path(sys.executable).with_name("mutmut")
LOG = ROOT / "mutants" / "run.log"  # mutmut paints its progress
DEAD = ("killed", "timeout", "segfault")
_CONFIG = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["mutmut"]
MODULES: list[str] = _CONFIG["only_mutate"]
TESTS: list[str] = _CONFIG["pytest_add_cli_args_test_selection"]


def _mutmut(*args: str) -> str:
    return subprocess.run([MUTMUT, *args], cwd=ROOT, capture_output=True, text=True, check=True).stdout


def main(wanted: Sequence[str]) -> str:
    """Prints the score of each module and how each mutant that lives differs; answers what is wrong."""
    unknown = [path for path in wanted if path not in MODULES]
    if unknown:
        return f"pyproject.toml lists no {', '.join(unknown)}"
    shutil.rmtree(LOG.parent, ignore_errors=True)  # it keeps results although the tests have changed
    LOG.parent.mkdir()
    patterns = [f"{path.removesuffix('.py').replace('/', '.')}.*" for path in wanted]
    with LOG.open("w") as log:
        command = [MUTMUT, "run", "--max-children", str(os.cpu_count() or 1), *patterns]
        if subprocess.run(command, cwd=ROOT, stdout=log, stderr=log).returncode:
            return LOG.read_text()[-5000:]
    total, dead, living = Counter[str](), Counter[str](), list[str]()
    for line in _mutmut("results", "--all", "true").splitlines():
        name, _, status = line.strip().partition(": ")
        module = name.rpartition(".")[0].replace(".", "/") + ".py"
        if wanted and module not in wanted:
            continue
        total[module] += 1
        if status in DEAD:
            dead[module] += 1
        else:
            living.append(name)
    for name in living:
        print(_mutmut("show", name))
    for module in wanted or MODULES:
        print(f"{module:<50}{dead[module]:>6} of {total[module]:>4}")
    score = f"{dead.total()} of {total.total()} mutants were killed"
    print(score)
    missing = [module for module in wanted or MODULES if not total[module]]
    return f"there are no mutants of {', '.join(missing)}" if missing else score if living else ""


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
