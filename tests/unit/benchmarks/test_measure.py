"""Rounds, ratios and figures; the sides are functions."""

import pytest

from benchmarks import load, measure
from benchmarks.load import Load, LoadError
from benchmarks.measure import Figure, Round, Side


def turn(per_second: float, p50_ms: float = 1.0, *, failed: int = 0, cpu: dict[str, float] | None = None) -> Round:
    statuses = {"OK": 1000 - failed} | ({"UNAVAILABLE": failed} if failed else {})
    return Round(Load(per_second, p50_ms, 2 * p50_ms, statuses), cpu or {})


def test_sides_take_turns_and_the_first_turn_does_not_count() -> None:
    order: list[tuple[str, float]] = []

    def side(name: str) -> Side:
        def run(seconds: float) -> Round:
            order.append((name, seconds))
            return turn(len(order))

        return Side(name, run)

    told: list[str] = []
    taken = measure.alternate([side("a"), side("b")], seconds=5, rounds=2, tell=told.append, warm_up=1)
    assert order == [("a", 1), ("b", 1), ("a", 5), ("b", 5), ("a", 5), ("b", 5)]
    assert [r.load.per_second for r in taken["a"]] == [3, 5]
    assert [r.load.per_second for r in taken["b"]] == [4, 6]
    assert len(told) == 4


def test_ratios_are_of_the_same_round() -> None:
    # The machine was half as fast in the second round; the medians of each side alone would say 2.2.
    over, under = [turn(200), turn(110), turn(300)], [turn(100), turn(50), turn(100)]
    assert measure.ratios(over, under) == pytest.approx([2, 2.2, 3])
    assert Figure("x", measure.ratios(over, under), 2).value == pytest.approx(2.2)
    assert measure.differences([turn(1, 3.0)], [turn(1, 0.5)]) == [2.5]


def test_rounds_that_do_not_pair_up_are_refused() -> None:
    with pytest.raises(ValueError, match="shorter"):
        measure.ratios([turn(1), turn(1)], [turn(1)])


@pytest.mark.parametrize(
    ("rounds", "reach", "at_most", "reached", "of_reach"),
    [
        ([1.0, 3.0, 2.0], 2, False, True, 1.0),
        ([1.9], 2, False, False, 0.95),
        ([1.2], 1.5, True, True, 1.25),
        ([3.0], 1.5, True, False, 0.5),
        ([-0.1], 1.5, True, True, float("inf")),
    ],
)
def test_figures_know_whether_they_are_reached(
    rounds: list[float], reach: float, at_most: bool, reached: bool, of_reach: float
) -> None:
    figure = Figure("x", rounds, reach, at_most=at_most)
    assert figure.reached is reached
    assert figure.of_reach == pytest.approx(of_reach)


def test_rows_are_medians_and_count_every_failure() -> None:
    rounds = [
        turn(100, 4, failed=2, cpu={"worker": 0.1}), turn(300, 5, cpu={"worker": 0.3, "nats": 0.3}), turn(200, 9)
    ]  # fmt: skip
    row = measure.summarise("side", rounds)
    assert (row.per_second, row.least, row.most, row.p50_ms, row.p99_ms) == (200, 100, 300, 5, 10)
    assert row.failed == 2
    assert row.cpu_us == pytest.approx({"worker": 100, "nats": 0})  # a thousand calls a round


def test_calls_that_failed_do_not_count() -> None:
    got = load.counted(1000.0, 1.0, 2.0, {"OK": 75, "UNAVAILABLE": 25}, 0.1)
    assert (got.per_second, got.ok, got.failed) == (750, 75, 25)


def test_a_round_without_any_answer_is_none() -> None:
    with pytest.raises(LoadError, match=r"no call was answered OK: \{'UNAVAILABLE': 25\}"):
        load.counted(1000.0, 1.0, 2.0, {"UNAVAILABLE": 25}, 0.1)
