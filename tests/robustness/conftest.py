"""What the availability cases share: a platform that they may hurt, and seeds."""

import os
import random
import secrets
from collections.abc import Iterator

import pytest

from tests.platform import Platform


@pytest.fixture(scope="session")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    """A platform of two workers. A test that stops something leaves it as it was."""
    with Platform(tmp_path_factory.mktemp("pair") / "home", workers=2) as running:
        yield running


@pytest.fixture
def seed_number() -> int:
    """Of what is random in a test; printed, and taken from MERCAT_TEST_SEED."""
    number = int(os.environ.get("MERCAT_TEST_SEED") or secrets.randbelow(2**32))
    print(f"\nseed {number}; MERCAT_TEST_SEED={number} replays it")
    return number


@pytest.fixture
def seed(seed_number: int) -> random.Random:
    return random.Random(seed_number)
