"""A platform that may post to this machine, whose time can be moved ahead."""

from collections.abc import Iterator

import pytest

from tests.platform import Account, Platform
from tests.webhook_receiver import SETTINGS, Receiver, receiver


@pytest.fixture(scope="package")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    with Platform(tmp_path_factory.mktemp("webhooks") / "home", env=SETTINGS) as running:
        yield running


@pytest.fixture
def there() -> Iterator[Receiver]:
    with receiver() as made:
        yield made


@pytest.fixture
def person(platform: Platform) -> Account:
    return platform.sign_up(credit=10**12)  # a session would end when the clock is moved
