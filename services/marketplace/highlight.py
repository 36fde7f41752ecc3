"""Finds in a text what was searched for, as the index finds it: folded, with typos, or as a beginning. Pure."""

import re
import unicodedata
from collections.abc import Callable, Iterable, Sequence

from mercat.marketplace.v1 import marketplace_pb2

_WORD = re.compile(r"[^\W_]+")  # as the index cuts a text
_SCANNED, _SHOWN, _BEFORE = 5_000, 160, 40  # characters of a long text: read, shown, and shown before the first find
Match = Callable[[str], bool]


def allowed(word: str) -> int:
    """Letters of a searched word that may be wrong."""
    return 0 if len(word) < 4 else 1 if len(word) < 8 else 2


def fold(text: str) -> str:
    """Without case and accents."""
    plain = unicodedata.normalize("NFKD", text.lower()).replace("ß", "ss")
    return "".join(c for c in plain if not unicodedata.combining(c))


def matcher(words: Sequence[str]) -> Match:
    """Whether a word of a text is one of the folded words of a query, the last of which may be still being typed."""
    known: dict[str, bool] = {}

    def matches(word: str) -> bool:
        folded = fold(word)
        if folded not in known:
            begins = len(words[-1]) >= 2 and folded.startswith(words[-1])
            known[folded] = begins or any(near(w, folded) for w in words)
        return known[folded]

    return matches if words else lambda _: False


def near(word: str, other: str) -> bool:
    """Whether two words are the same but for as many letters as `allowed`; two that changed places are one."""
    most = allowed(word)
    if abs(len(word) - len(other)) > most:
        return False
    if word == other or not most:
        return word == other
    before: list[int] = []
    row = list(range(len(other) + 1))
    for i, a in enumerate(word, 1):
        older, before, row = before, row, [i]
        for j, b in enumerate(other, 1):
            cost = min(before[j] + 1, row[j - 1] + 1, before[j - 1] + (a != b))
            if i > 1 and j > 1 and a == other[j - 2] and word[i - 2] == b:
                cost = min(cost, older[j - 2] + 1)
            row.append(cost)
        if min(row) > most:
            return False
    return row[-1] <= most


def highlights(texts: Iterable[tuple[str, str]], matches: Match) -> list[marketplace_pb2.Highlight]:
    """One for each (field, text) that has a find."""
    return [found for field, text in texts if (found := _highlight(field, text, matches)) is not None]


def _highlight(field: str, text: str, matches: Match) -> marketplace_pb2.Highlight | None:
    spans = [word.span() for word in _WORD.finditer(text[:_SCANNED]) if matches(word.group())]
    if not spans:
        return None
    start, end = 0, len(text)
    if len(text) > 2 * _SHOWN:
        start = max(0, spans[0][0] - _BEFORE)
        start = text.find(" ", start, spans[0][0]) + 1 if start else 0
        end = min(len(text), start + _SHOWN)
    found = marketplace_pb2.Highlight(field=field, text=text[start:end])
    for first, last in spans:
        if start <= first and last <= end:
            found.ranges.add(start=first - start, end=last - start)
    return found
