"""Errors cross the wire and come back the same."""

import pytest

from services.common import errors
from services.common.errors import (
    InsufficientCredit,
    InvalidFields,
    MercatError,
    NotFound,
    Violation,
    from_status,
    to_status,
)


@pytest.mark.parametrize(
    "error",
    [
        InvalidFields(violations=[Violation("email", "is required")]),
        InsufficientCredit("no credit", metadata={"balance_nanos": "3"}, retry_after=1.5),
        NotFound("nothing here", reason="MODEL_NOT_FOUND"),
        errors.Unavailable("later", retry_after=0.25),
    ],
)
def test_an_error_is_rebuilt_as_what_it_was(error: MercatError):
    back = from_status(to_status(error))
    assert back.code is error.code
    assert back.reason == error.reason
    assert back.message == error.message
    assert back.metadata == error.metadata
    assert back.violations == error.violations
    assert back.retry_after == error.retry_after


class Odd(NotFound, reason="ODD"):
    """Made in a way of its own."""

    def __init__(self, first: str, second: str) -> None:
        super().__init__(f"{first} and {second}")


def test_an_error_with_a_constructor_of_its_own_is_rebuilt():
    back = from_status(to_status(Odd("this", "that")))
    assert type(back) is Odd
    assert back.message == "this and that"


def test_a_known_reason_brings_its_own_class_back():
    assert type(from_status(to_status(InsufficientCredit("x")))) is InsufficientCredit
    assert type(from_status(to_status(NotFound("x", reason="SOMETHING_ELSE")))) is NotFound
