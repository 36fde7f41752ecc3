"""Calls that wait for a place: higher classes first, and within one the accounts in turn."""

from collections import OrderedDict, deque
from collections.abc import Iterator
from typing import Generic, Protocol, TypeVar


class Waiter(Protocol):
    @property
    def account(self) -> str: ...
    @property
    def level(self) -> int: ...


W = TypeVar("W", bound=Waiter)


class Waiting(Generic[W]):
    """An account's own calls keep their order."""

    def __init__(self) -> None:
        self._levels: dict[int, OrderedDict[str, deque[W]]] = {}
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[W]:
        for level in sorted(self._levels):
            for queue in self._levels[level].values():
                yield from queue

    def add(self, call: W) -> None:
        self._levels.setdefault(call.level, OrderedDict()).setdefault(call.account, deque()).append(call)
        self._count += 1

    def first(self) -> W | None:
        """Whose turn it is."""
        return next(iter(self), None)

    def take(self) -> None:
        """Removes the first; its account's next turn comes after all others'."""
        if (call := self.first()) is not None:
            self.discard(call)
            accounts = self._levels.get(call.level, OrderedDict())
            if call.account in accounts:
                accounts.move_to_end(call.account)

    def last_below(self, level: int) -> W | None:
        """Who gives way to a call of a class: in the lowest class, if that is a lower one, the newest of
        the account that waits for most."""
        lowest = max(self._levels, default=level)
        if lowest <= level:
            return None
        return max(self._levels[lowest].values(), key=len)[-1]

    def discard(self, call: W) -> None:
        """Removes a call, if it waits."""
        accounts = self._levels.get(call.level, OrderedDict())
        if call not in accounts.get(call.account, ()):
            return
        accounts[call.account].remove(call)
        self._count -= 1
        if not accounts[call.account]:
            del accounts[call.account]
        if not accounts:
            del self._levels[call.level]
