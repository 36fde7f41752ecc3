"""What all tests share: options, tools, platforms of a test's own, and how tests run beside each other."""

import fcntl
import os
import random
import secrets
import shutil
import tempfile
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings

from tests import template
from tests.platform import Platform
from tests.scheduling import ByPackage
from tests.sizes import WHOLE, Size

TOOLS = Path(__file__).parent.parent / ".tools" / "bin"
_LOCKS = [
    Path(tempfile.gettempdir()) / f"mercat-tests-{os.environ.get('PYTEST_XDIST_TESTRUNUID')}.{name}"
    for name in ("next", "running")
]
_SAID = ("seed ", "oracle L: ")  # what a run must say although its tests passed

# How long an example takes says how busy the machine is.
settings.register_profile("patient", deadline=None)
settings.load_profile("patient")
# `--hypothesis-profile=fixed`: the same few examples in every run, for tests that are run very often and counted.
settings.register_profile(
    "fixed", derandomize=True, max_examples=20, database=None, deadline=None, phases=(Phase.explicit, Phase.generate),
    suppress_health_check=list(HealthCheck),
)  # fmt: skip


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--calls", type=int, default=1_000, help=f"of each case of robustness; {WHOLE} make it whole")
    parser.addoption("--seed", type=int, help="the number that a random test printed, to replay it")
    parser.addoption(
        "--upload-gib", type=float, default=1 / 16, help="how large the uploads are that are killed; 5: whole"
    )
    parser.addoption("--minutes", type=float, default=0.0, help="how long the long run of the robustness tests takes")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> ByPackage | None:
    return ByPackage(config, log) if config.getvalue("dist") == "loadfile" else None


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """The seeds of random tests, and what was counted in them."""
    reports = [r for r in terminalreporter.stats.get("passed", []) if isinstance(r, pytest.TestReport)]
    said = [(r.nodeid, line) for r in reports for line in r.capstdout.splitlines() if line.startswith(_SAID)]
    if said:
        terminalreporter.section("seeds and counts")
    for test, line in said:
        terminalreporter.line(f"{test.rpartition('/')[2]}: {line}")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """A test marked `alone` measures time: while it runs, the other processes of the same run start none."""
    if "PYTEST_XDIST_WORKER" not in os.environ:
        return (yield)
    alone = item.get_closest_marker("alone") is not None
    with ExitStack() as held:
        next_one, running = (held.enter_context(path.open("w")) for path in _LOCKS)
        fcntl.flock(next_one, fcntl.LOCK_EX)  # or tests that share the machine would never let go of it
        fcntl.flock(running, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
        fcntl.flock(next_one, fcntl.LOCK_UN)
        return (yield)


@pytest.fixture(scope="session", autouse=True)
def _template(tmp_path_factory: pytest.TempPathFactory) -> None:
    """The processes of a run share it; a few files alone would wait longer for it than they gain by it."""
    if "PYTEST_XDIST_WORKER" in os.environ:
        template.place = tmp_path_factory.getbasetemp().parent / "template"


@pytest.fixture
def own_platform(tmp_path: Path) -> Iterator[Callable[..., Platform]]:
    """Makes a platform of the test's own, which it may break; stopped afterwards."""
    made: list[Platform] = []

    def make(**options: Any) -> Platform:
        made.append(Platform(tmp_path / f"home-{len(made)}", **options))
        return made[-1].start()

    yield make
    for running in made:
        running.stop()


@pytest.fixture(scope="session")
def tool() -> Callable[[str], str]:
    """The path of a foreign tool. Where it cannot be had the test is skipped; in CI it fails."""

    def find(name: str) -> str:
        path = shutil.which(name, path=f"{TOOLS}:{os.environ['PATH']}")
        if path is None:
            message = f"{name} is not installed; `make tools` installs it"
            if os.environ.get("CI"):
                pytest.fail(message)
            pytest.skip(message)
        return path

    return find


@pytest.fixture(scope="session")
def size(request: pytest.FixtureRequest) -> Size:
    return Size(request.config.getoption("--calls"))


@pytest.fixture
def seed_number(request: pytest.FixtureRequest) -> int:
    """Of what is random in a test; printed, and replayed by `--seed`."""
    given = request.config.getoption("--seed")
    number: int = secrets.randbelow(2**32) if given is None else given
    print(f"\nseed {number}")
    return number


@pytest.fixture
def seed(seed_number: int) -> random.Random:
    return random.Random(seed_number)
