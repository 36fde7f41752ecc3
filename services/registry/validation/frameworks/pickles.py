"""What a Python pickle would import, told without unpickling anything. Two ways to look: `imported` reads what it can
of any pickle, to tell its publisher; `check` lets nothing pass that TorchScript does not write itself, since what
scanners that look for what is known to be bad have missed is a long list (`tests/robustness/test_hostile.py`)."""

import io
import pickletools
import re
import warnings
from collections.abc import Iterator
from typing import Any

from services.registry.validation.report import Refused

MOST_SHOWN = 5
_MOST_READ = 5_000_000  # operations
# Of TorchScript's own pickler (torch/csrc/jit/serialization/pickler.cpp): no import by computed names, no extension
# registry, no calls but of what GLOBAL has named.
_OPERATIONS = frozenset({
    "PROTO", "FRAME", "STOP", "MARK", "POP", "NONE", "NEWTRUE", "NEWFALSE", "BININT", "BININT1", "BININT2", "LONG1",
    "BINFLOAT", "BINUNICODE", "SHORT_BINSTRING", "BINSTRING", "EMPTY_TUPLE", "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3",
    "EMPTY_LIST", "LIST", "APPEND", "APPENDS", "EMPTY_DICT", "DICT", "SETITEM", "SETITEMS", "BINPUT", "LONG_BINPUT",
    "BINGET", "LONG_BINGET", "GLOBAL", "REDUCE", "BUILD", "BINPERSID", "NEWOBJ",
})  # fmt: skip
_GLOBALS = re.compile(
    r"__torch__(?:\.\w+)* \w+"
    r"|torch\.jit\._pickle (?:build_\w+|restore_type_tag)"
    r"|torch\._utils _rebuild_(?:tensor|tensor_v2|qtensor|sparse_tensor)"
    r"|torch (?:[A-Z]\w*Storage|device|per_tensor_affine|per_channel_affine|per_channel_affine_float_qparams)"
    r"|collections OrderedDict",
    re.ASCII,
)


def check(data: bytes, where: str) -> None:
    """Raises Refused for a pickle that TorchScript would not have written."""
    last = None
    try:
        for count, (operation, argument, _) in enumerate(_operations(data)):
            last = operation
            if operation == "LONG_BINPUT" and int(argument) > count:  # or readers make room for so many
                raise _pickled("it remembers things under numbers that it has no reason for", where)
            if operation == "GLOBAL" and not _GLOBALS.fullmatch(str(argument)):
                raise _pickled(f"it would import {_name(argument)}", where)
            if operation not in _OPERATIONS:
                raise _pickled(f"it says {operation}, which TorchScript never does", where)
    except ValueError:
        raise _pickled("a pickle in it is broken", where) from None
    if last != "STOP":
        raise _pickled("a pickle in it is cut off", where)


def imported(data: bytes) -> list[str]:
    """Names that a pickle would import, as `module.name`, the first few; `…` for one that it computes. Reads past what
    is broken as far as an unpickler would have come."""
    found: list[str] = []
    texts: list[str] = []
    memo: dict[int, str] = {}
    try:
        for operation, argument, _ in _operations(data):
            if operation in ("GLOBAL", "INST"):
                found.append(_name(argument))
            elif operation == "STACK_GLOBAL":
                found.append(".".join(texts[-2:]) if len(texts) > 1 else "…")
            elif operation in ("EXT1", "EXT2", "EXT4"):
                found.append("…")
            elif operation == "MEMOIZE" and texts:
                memo[len(memo)] = texts[-1]
            elif operation in ("BINPUT", "LONG_BINPUT", "PUT") and texts:
                memo[int(argument)] = texts[-1]
            elif operation in ("BINGET", "LONG_BINGET", "GET"):
                texts.append(memo.get(int(argument), "…"))
            elif isinstance(argument, str):
                texts.append(argument)
    except ValueError:
        pass
    return list(dict.fromkeys(found))[:MOST_SHOWN]


def told(data: bytes) -> str:
    """For a sentence about a pickle: what it would import, or nothing."""
    names = imported(data)
    return f", which would import {', '.join(names)}" if names else ""


def _operations(data: bytes) -> Iterator[tuple[str, Any, int | None]]:
    """Of every pickle in it: an unpickler may be called again where one has ended. Raises ValueError."""
    file, read = io.BytesIO(data), 0
    while file.tell() < len(data):
        found = pickletools.genops(file)
        while True:
            try:
                with warnings.catch_warnings(action="ignore"):  # of strange escapes in texts
                    operation, argument, at = next(found)
            except StopIteration:
                break
            except (UnicodeDecodeError, OverflowError, IndexError, MemoryError) as e:
                raise ValueError(str(e)) from e
            yield operation.name, argument, at
            read += 1
            if read > _MOST_READ:
                raise ValueError("more operations than are looked at")


def _name(argument: Any) -> str:
    return str(argument).replace(" ", ".", 1)


def _pickled(text: str, where: str) -> Refused:
    return Refused("PICKLED_OBJECT", text, where)
