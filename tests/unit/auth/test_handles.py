"""Handles that nobody may choose."""

import pytest

from services.auth.handles.reserved import is_reserved


@pytest.mark.parametrize(
    "handle",
    ["admin", "a-d-m-i-n", "adm1n", "api", "v1", "openai", "mercat", "rnercat", "mer-cat", "mercat-support", "0fficial",
     "mercat-api", "deleted-01abc"],
)  # fmt: skip
def test_reserved(handle: str) -> None:
    assert is_reserved(handle)


@pytest.mark.parametrize("handle", ["ada", "mercator", "apis", "administration", "support-vector", "consumer", "x"])
def test_free(handle: str) -> None:
    assert not is_reserved(handle)
