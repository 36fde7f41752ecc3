"""Model references, and the order of semantic versions against an oracle written from semver.org's own words."""

import functools
import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.common.errors import InvalidFields
from services.registry.references import Reference, newest, parse, parse_model, precedence

numbers = st.integers(0, 30)
words = st.text("0123456789abcXYZ-", min_size=1, max_size=4)
identifiers = words.filter(lambda w: not (w.isdigit() and len(w) > 1 and w[0] == "0"))


@st.composite
def versions(draw: st.DrawFn) -> str:
    release = ".".join(str(draw(numbers)) for _ in range(3))
    pre = draw(st.lists(identifiers, max_size=4))
    return release + ("-" + ".".join(pre) if pre else "")


def compare(a: str, b: str) -> int:
    """semver.org 2.0.0, 11.1 to 11.4.4, clause by clause."""
    (core_a, _, pre_a), (core_b, _, pre_b) = a.partition("-"), b.partition("-")
    for x, y in zip(core_a.split("."), core_b.split("."), strict=True):
        if int(x) != int(y):
            return 1 if int(x) > int(y) else -1
    if not pre_a or not pre_b:
        return bool(pre_b) - bool(pre_a)
    fields_a, fields_b = pre_a.split("."), pre_b.split(".")
    for x, y in zip(fields_a, fields_b, strict=False):
        if x == y:
            continue
        if x.isdigit() and y.isdigit():
            return 1 if int(x) > int(y) else -1
        if x.isdigit() != y.isdigit():
            return -1 if x.isdigit() else 1
        return 1 if x.encode() > y.encode() else -1
    return (len(fields_a) > len(fields_b)) - (len(fields_a) < len(fields_b))


@given(versions(), versions())
def test_precedence_is_semvers(a: str, b: str) -> None:
    x, y = precedence(a), precedence(b)
    assert (x > y) - (x < y) == compare(a, b)


@given(st.lists(versions(), max_size=8))
def test_the_newest_is_the_highest_release_if_there_is_one(made: list[str]) -> None:
    releases = [v for v in made if "-" not in v]
    if not made:
        assert newest(made) == ""
        return
    best = max(releases or made, key=functools.cmp_to_key(compare))
    assert compare(newest(made), best) == 0
    assert newest(made) in (releases or made)


def test_the_example_of_the_specification() -> None:
    ordered = ["1.0.0-alpha", "1.0.0-alpha.1", "1.0.0-alpha.beta", "1.0.0-beta", "1.0.0-beta.2", "1.0.0-beta.11",
               "1.0.0-rc.1", "1.0.0", "1.9.0", "1.10.0"]  # fmt: skip
    assert all(precedence(lower) < precedence(higher) for lower, higher in itertools.pairwise(ordered))


@pytest.mark.parametrize(
    ("text", "reference"),
    [
        ("ada/m", Reference("ada", "m")), ("ada/m@1.4.2", Reference("ada", "m", "1.4.2")),
        ("ada/m@1.0.0-rc.1", Reference("ada", "m", "1.0.0-rc.1")),
        ("ada/m:stable", Reference("ada", "m", "", "stable")),
        ("a-1/b_c.d-e", Reference("a-1", "b_c.d-e")),
    ],
)  # fmt: skip
def test_references(text: str, reference: Reference) -> None:
    assert parse(text) == reference


@pytest.mark.parametrize(
    "text",
    ["", "m", "/m", "ada/", "ada/m/x", "Ada/m", "ada/m@", "ada/m:", "ada/m:1", "ada/m@1:stable", "ada/m\n", "../m x",
     "ada/m@١.0.0", "a" * 40 + "/m", "ada/" + "m" * 65],
)  # fmt: skip
def test_no_references(text: str) -> None:
    with pytest.raises(InvalidFields) as caught:
        parse(text, "reference")
    assert [v.field for v in caught.value.violations] == ["reference"]


def test_a_model_alone_has_no_version() -> None:
    assert parse_model("ada/m") == Reference("ada", "m")
    for text in ("ada/m@1.0.0", "ada/m:stable", "m"):
        with pytest.raises(InvalidFields):
            parse_model(text)


@given(st.text(max_size=60))
def test_no_text_breaks_the_parser(text: str) -> None:
    try:
        assert parse(text).model in text
    except InvalidFields:
        pass
