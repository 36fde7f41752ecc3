"""What the cases share: a platform that they may hurt, and calls meanwhile."""

from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from tests.platform import Platform
from tests.robustness.run import Run, Start


@pytest.fixture(scope="package")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    """A platform of two workers. A test that stops something leaves it as it was."""
    home = tmp_path_factory.mktemp("pair") / "home"
    with Platform(home, workers=2, env={"MERCAT_PAYMENT_CLAIM_SECONDS": "3"}) as running:
        yield running


@pytest.fixture
async def start() -> AsyncIterator[Start]:
    """Starts a `Run`, which ends with the test whatever comes."""
    runs: list[Run] = []

    def make(*args: Any, **options: Any) -> Run:
        runs.append(Run(*args, **options))
        return runs[-1]

    yield make
    for run in runs:
        await run.stop()
