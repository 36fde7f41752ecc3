"""Tags that a caller sets on a call, to tell their usage apart: `mercat-tag: team=research, env=prod`."""

import re
from collections.abc import Iterable

from services.common.errors import InvalidFields, Violation

KEY = "mercat-tag"
MOST = 8  # tags of a call
_LONGEST = 1_000  # characters of a header, so that what is refused costs little
_NAME = re.compile(r"[a-z][a-z0-9_.-]{0,31}")
_VALUE = re.compile(r"[A-Za-z0-9_.:/@+-]{1,64}")

Tags = tuple[tuple[str, str], ...]


def read(values: Iterable[str]) -> Tags:
    """The tags of all the headers of this name, in the order of their names, each name once.

    Raises:
        InvalidFields: names `mercat-tag` and says which tag is wrong.
    """
    found: dict[str, str] = {}
    for part in ",".join(values)[: _LONGEST + 1].split(","):
        name, _, value = part.strip().partition("=")
        if not _NAME.fullmatch(name):
            raise _refusal(f"{name[:40]!r} is no name: 1 to 32 of a-z, 0-9, _ . -, a letter first, then = and a value")
        if not _VALUE.fullmatch(value):
            raise _refusal(f"the value of {name} must be 1 to 64 of a-z, A-Z, 0-9, _ . : / @ + -")
        if name in found:
            raise _refusal(f"{name} is given twice")
        if len(found) == MOST:
            raise _refusal(f"at most {MOST} tags")
        found[name] = value
    return tuple(sorted(found.items()))


def show(tags: Iterable[tuple[str, str]]) -> str:
    """As a header says them: `env=prod,team=research`."""
    return ",".join(f"{name}={value}" for name, value in tags)


def _refusal(text: str) -> InvalidFields:
    return InvalidFields(violations=[Violation(KEY, text)])
