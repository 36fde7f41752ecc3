"""What is called together, by itself."""

from hypothesis import given
from hypothesis import strategies as st

from services.marketplace.discovery.together import LEAST, together
from services.marketplace.store import trend


def test_few_accounts_tell_nothing() -> None:
    callers = [["a", "b"]] * LEAST + [["a", "c"]] * (LEAST - 1)
    assert {(p.model, p.other) for p in together(callers)} == {("a", "b"), ("b", "a")}


def test_what_everybody_calls_goes_with_nothing_in_particular() -> None:
    callers = [["all", "x", "y"]] * 4 + [["all"]] * 40
    best = {p.model: p.other for p in reversed(together(callers))}
    assert best["x"] == "y"


@given(st.lists(st.lists(st.sampled_from("abcde"), unique=True), max_size=30))
def test_scores_are_cosines_both_ways(callers: list[list[str]]) -> None:
    pairs = {(p.model, p.other): p for p in together(callers, least=1)}
    for (one, other), pair in pairs.items():
        both = sum(one in c and other in c for c in callers)
        alone = sum(one in c for c in callers) * sum(other in c for c in callers)
        assert pair.accounts == both > 0
        assert pair.score == both / alone**0.5 == pairs[other, one].score


def test_more_calls_than_chance_are_a_trend() -> None:
    assert trend(10, 10) == trend(3, 8) == 0
    assert trend(100, 0) > trend(100, 50) > trend(60, 50) > 0
    assert trend(1100, 1000) < trend(200, 100)
