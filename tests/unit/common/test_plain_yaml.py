"""YAML from outside: texts, lists and dicts; nothing grows, nothing runs."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.common.plain_yaml import MOST, BadYaml, load


def test_values_are_the_texts_that_stand_there() -> None:
    text = "language: no\nversion: 1.10\nwhen: 2026-01-01\nempty:\nlist: [1e3, yes]\ndeep: {a: [b]}"
    assert load(text) == {
        "language": "no", "version": "1.10", "when": "2026-01-01", "empty": "", "list": ["1e3", "yes"],
        "deep": {"a": ["b"]},
    }  # fmt: skip
    assert load("") == load("# nothing") == {}
    assert load("a: !!python/object/apply:os.system ['ls']") == {"a": ["ls"]}


BOMB = "a: &a [x, x]\n" + "".join(f"{b}: &{b} [*{a}, *{a}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True))


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (BOMB, "line 2: aliases are not taken"),
        ("a: &a [*a]", "line 1: aliases"),
        ("x: 1\n<<: *b", "line 2: aliases"),
        ("a: 1\na: 2", "a key is given twice"),
        ("[a, b]: c", "line 1: found unhashable key"),
        ("[" * MOST, "nested too deep"),
        ("{a: " * 4000, "nested too deep"),
        ("? " * 5000, "nested too deep"),
        ("a: " + "x" * MOST, "at most 16,384"),
        ("- a", "keys with values"),
        ("a: b\n---\nc: d", "another document"),
        ("a: b\nc", "line 2"),
        ("a: \0", "no YAML"),
        ("\ta: b", "line 1"),
        ("%YAML 9.9\n---\na: b", "incompatible"),
    ],
)
def test_anything_else_is_refused_with_its_line(text: str, why: str) -> None:
    with pytest.raises(BadYaml) as caught:
        load(text)
    assert why in str(caught.value)


@given(st.text(max_size=200) | st.text("-?:{}[]&*!|>'\"%@`#, \nab\t", max_size=200))
def test_nothing_else_comes_out(text: str) -> None:
    try:
        assert isinstance(load(text), dict)
    except BadYaml:
        pass
