"""Pages of a search that stay as they were while the index changes: a search whose pages go on is held with the state
of the index that it began in. Whom another process or a later hour asks goes on after the model that was the last."""

import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from mercat.marketplace.v1 import marketplace_pb2

from services.common import ids
from services.marketplace.index import Snapshot
from services.marketplace.questions import Wanted
from services.marketplace.ranking import fuse

MOST = 10_000  # hits that pages can reach
_FUSED = 200  # hits by words that are merged with those by meaning
_HELD, _SECONDS = 2_000, 600.0  # searches, and for how long after their last page


@dataclass(frozen=True)
class Search:
    """One search in one state of the index. `head`: its first hits where they are not in the order of the index; the
    others come after them. `meant`: hits that need not have the words."""

    wanted: Wanted
    snapshot: Snapshot
    mode: "marketplace_pb2.SearchMode.ValueType"
    head: Sequence[str] = ()
    meant: Sequence[str] = ()
    skipped: int = 0  # hits of the index that `head` has already
    total: int = 0
    doubled: int = 0  # hits of the index after those that `head` has too, whose places stay empty

    @property
    def places(self) -> int:
        """Where pages end."""
        return self.total + self.doubled

    def page(self, offset: int, most: int) -> list[str]:
        """Blocks."""
        names = list(self.head[offset : offset + most])
        if (more := most - len(names)) and self.places > len(self.head):
            at = self.skipped + max(0, offset - len(self.head))
            rest, _ = self.snapshot.search(self.wanted, at, more)
            held = set(self.head)
            names += [name for name in rest if name not in held]
        return names

    def facets(self) -> dict[str, dict[str, int]]:
        """Blocks."""
        return self.snapshot.facets(self.wanted, self.meant)


def lexical(snapshot: Snapshot, wanted: Wanted) -> Search:
    """By words alone; of models of which none has all of them, by most of them."""
    wanted, total = _found(snapshot, wanted)
    return Search(wanted, snapshot, marketplace_pb2.SEARCH_MODE_LEXICAL, total=total)


def semantic(snapshot: Snapshot, wanted: Wanted, near: Sequence[str]) -> Search:
    """By meaning alone: `near`, the nearest first."""
    near = snapshot.among(wanted.unworded, near)
    return Search(wanted, snapshot, marketplace_pb2.SEARCH_MODE_SEMANTIC, near, near, total=len(near))


def hybrid(snapshot: Snapshot, wanted: Wanted, near: Sequence[str]) -> Search:
    """By words and by meaning."""
    near = snapshot.among(wanted.unworded, near)
    wanted, total = _found(snapshot, wanted)
    names, _ = snapshot.search(wanted, 0, _FUSED)
    both = snapshot.among(wanted, near)
    total += len(near) - len(both)
    doubled = len(set(both).difference(names))
    mode = marketplace_pb2.SEARCH_MODE_HYBRID
    return Search(wanted, snapshot, mode, fuse(names, near), near, len(names), total, doubled)


def _found(snapshot: Snapshot, wanted: Wanted) -> tuple[Wanted, int]:
    total = snapshot.search(wanted, 0, 1)[1]
    if total or not wanted.words.strip():
        return wanted, total
    wanted = replace(wanted, relaxed=True)
    return wanted, snapshot.search(wanted, 0, 1)[1]


class Cursors:
    """Searches that are held, by the id in their page tokens."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._held: OrderedDict[str, tuple[float, tuple[object, ...], Search]] = OrderedDict()

    def hold(self, search: Search, asked: tuple[object, ...]) -> str:
        """`asked`: what every page of it must ask alike."""
        identifier = ids.new("cur")
        self._held[identifier] = (self._now(), asked, search)
        while len(self._held) > _HELD or next(iter(self._held.values()))[0] < self._now() - _SECONDS:
            self._held.popitem(last=False)
        return identifier

    def get(self, identifier: str, asked: tuple[object, ...]) -> Search | None:
        """None for one that is not held here, or not any more. Raises ValueError when it was another search."""
        held = self._held.get(identifier)
        if held is None or held[0] < self._now() - _SECONDS:
            return None
        if held[1] != asked:
            raise ValueError("of another search")
        self._held[identifier] = (self._now(), *held[1:])
        self._held.move_to_end(identifier)
        return held[2]
