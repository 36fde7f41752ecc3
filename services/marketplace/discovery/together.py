"""Which models are called by the same accounts. Pure."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from itertools import combinations
from typing import NamedTuple

LEAST = 3  # accounts; fewer would tell what somebody calls
_MOST_CALLED = 200  # models of an account; who calls more says little of each pair
_KEPT = 50  # others of a model


class Pair(NamedTuple):
    """`score`: accounts that call both by those that might, the cosine of the two models' callers."""

    model: str
    other: str
    accounts: int
    score: float


def together(callers: Iterable[Sequence[str]], least: int = LEAST) -> list[Pair]:
    """The models that go best with each one, both ways; `callers`: what each account calls, each model once."""
    alone: Counter[str] = Counter()
    both: Counter[tuple[str, str]] = Counter()
    for models in callers:
        if len(models) <= _MOST_CALLED:
            alone.update(models)
            both.update(combinations(sorted(models), 2))
    found: dict[str, list[Pair]] = defaultdict(list)
    for (one, other), accounts in both.items():
        if accounts >= least:
            score = accounts / (alone[one] * alone[other]) ** 0.5
            found[one].append(Pair(one, other, accounts, score))
            found[other].append(Pair(other, one, accounts, score))
    return [pair for pairs in found.values() for pair in sorted(pairs, key=lambda p: (-p.score, p.other))[:_KEPT]]
