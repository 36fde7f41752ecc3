"""Names that people take for one another."""

import re
from collections.abc import Iterable

# Of ASCII what is read as something else at a glance.
_LOOKS = (("rn", "m"), ("vv", "w"), ("0", "o"), ("1", "l"), ("i", "l"), ("5", "s"))


def skeleton(name: str, also: Iterable[tuple[str, str]] = ()) -> str:
    """What ASCII names that look alike share: without case, spaces and punctuation. `also`: more that looks alike. The
    skeleton of a skeleton is itself. Migrations of auth and registry make it in SQL."""
    text = re.sub(r"[^a-z0-9]", "", name.lower())
    for seen, taken_for in (*also, *_LOOKS):
        text = text.replace(seen, taken_for)
    return text
