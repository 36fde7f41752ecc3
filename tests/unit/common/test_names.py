"""Names that look alike."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.common.names import skeleton


@pytest.mark.parametrize(
    ("one", "other"),
    [("ada", "a-d_a."), ("acme", "acrne"), ("google", "g00gle"), ("lima", "1ima"), ("lima", "Iima"), ("yolos", "yolo5"),
     ("wave", "vvave"), ("resnet-50", "resnet50")],
)  # fmt: skip
def test_names_that_look_alike(one: str, other: str) -> None:
    assert skeleton(one) == skeleton(other)


def test_others_do_not() -> None:
    names = ["ada", "adam", "bob", "clean", "dean", "resnet-50", "resnet-101", "m1", "m11", "v2", "vz"]
    assert len({skeleton(name) for name in names}) == len(names)


@given(st.text(st.sampled_from("abclmnorsvw0158iI-_. "), max_size=20))
def test_a_skeleton_is_its_own(name: str) -> None:
    assert skeleton(skeleton(name)) == skeleton(name)
