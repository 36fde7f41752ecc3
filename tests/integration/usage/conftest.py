"""One set of books for all tests of this folder: each makes its own people."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.integration.billing.books import Books, running


@pytest_asyncio.fixture(scope="package")
async def books(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Books]:
    async with running(tmp_path_factory.mktemp("books")) as made:
        yield made
