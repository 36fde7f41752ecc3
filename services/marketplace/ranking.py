"""Merges ranked lists. Pure."""

from collections.abc import Sequence

_K = 60  # of https://dl.acm.org/doi/10.1145/1571941.1572114: how little the first ranks count before the next


def fuse(*lists: Sequence[str]) -> list[str]:
    """All names by the sum of 1 / (60 + rank) over the lists that have them; of equals the one that came first."""
    scores: dict[str, float] = {}
    for names in lists:
        for rank, name in enumerate(names, 1):
            scores[name] = scores.get(name, 0.0) + 1 / (_K + rank)
    return sorted(scores, key=lambda name: -scores[name])
