"""Passwords that leaked elsewhere: the 30,000 most used of them, which zxcvbn brings, and a file of all that are known,
where the operator has one."""

import hashlib
from functools import cache
from pathlib import Path

from zxcvbn.frequency_lists import FREQUENCY_LISTS

_DIGITS = 40  # of SHA-1


class LeakedPasswords:
    """`path`: a list as Have I Been Pwned gives it for download, a line `SHA-1:COUNT` each, sorted by hash; None: only
    the list that comes along."""

    def __init__(self, path: Path | None = None) -> None:
        self._path = path

    def has(self, password: str) -> bool:
        """Reads some lines of the file. Raises OSError when there is none."""
        if password.lower() in _most_used():
            return True
        return self._path is not None and _in_file(self._path, password)


@cache
def _most_used() -> frozenset[str]:
    return frozenset(FREQUENCY_LISTS["passwords"])


def _in_file(path: Path, password: str) -> bool:
    """Halves the file until one line is left: 36 reads for 40 GB."""
    wanted = hashlib.sha1(password.encode(), usedforsecurity=False).hexdigest().upper().encode()
    with path.open("rb") as file:
        low, high = 0, path.stat().st_size

        def line_from(at: int) -> bytes:
            """The hash of the first line that begins at or after a place; empty past the last."""
            file.seek(max(at - 1, 0))
            if at:
                file.readline()
            return file.readline()[:_DIGITS].upper()

        while low < high:
            middle = (low + high) // 2
            found = line_from(middle)
            if found and found < wanted:
                low = middle + 1
            else:
                high = middle
        return line_from(low) == wanted
