"""One running platform, without the demo catalogue, for the tests of the services."""

from collections.abc import Iterator

import pytest

from tests.platform import Platform


@pytest.fixture(scope="package")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    """Shared: a test makes its own people and models, and stops nothing."""
    with Platform(tmp_path_factory.mktemp("services") / "home", demo=False) as running:
        yield running
