"""One running platform with the demo catalogue."""

from collections.abc import Iterator

import pytest

from tests.platform import Platform


@pytest.fixture(scope="package")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    """Everything running, the demo published. Shared: a test makes its own people and models, and stops nothing."""
    with Platform(tmp_path_factory.mktemp("platform") / "home", demo=True) as running:
        yield running
