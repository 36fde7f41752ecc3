"""Whose turn it is."""

from dataclasses import dataclass

from services.inference.text.decoder.waiting import Waiting


@dataclass(eq=False)
class Waiter:
    name: str
    account: str
    level: int = 1


def queue(*waiters: Waiter) -> Waiting[Waiter]:
    made: Waiting[Waiter] = Waiting()
    for waiter in waiters:
        made.add(waiter)
    return made


def order(waiting: Waiting[Waiter]) -> list[str]:
    names = []
    while (first := waiting.first()) is not None:
        names.append(first.name)
        waiting.take()
    return names


def test_accounts_take_turns():
    waiting = queue(*(Waiter(f"a{i}", "a") for i in range(4)), Waiter("b0", "b"), Waiter("b1", "b"), Waiter("c0", "c"))
    assert order(waiting) == ["a0", "b0", "c0", "a1", "b1", "a2", "a3"]
    assert len(waiting) == 0


def test_who_comes_later_waits_for_one_call_of_each_other_account():
    waiting = queue(*(Waiter(f"a{i}", "a") for i in range(3)))
    waiting.take()
    waiting.add(Waiter("b0", "b"))
    assert order(waiting) == ["a1", "b0", "a2"]


def test_higher_classes_go_first():
    waiting = queue(Waiter("low", "a", 3), Waiter("high", "a", 1), Waiter("middle", "b", 2), Waiter("high2", "a", 1))
    assert order(waiting) == ["high", "high2", "middle", "low"]


def test_the_newest_of_the_lowest_class_gives_way():
    waiting = queue(Waiter("old", "a", 3), Waiter("new", "a", 3), Waiter("other", "b", 3), Waiter("high", "c", 1))
    low = waiting.last_below(2)
    assert low is not None
    assert low.name == "new"
    assert waiting.last_below(3) is None
    waiting.discard(low)
    waiting.discard(low)
    assert order(waiting) == ["high", "old", "other"]
