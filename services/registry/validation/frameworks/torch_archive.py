"""What is refused in a PyTorch archive before PyTorch opens it. It opens it in a sandbox all the same; this is what
must not reach a Triton either, which has none."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from services.registry.validation.frameworks import pickles
from services.registry.validation.frameworks.archives import Entry, Form, entries, opened
from services.registry.validation.report import Refused

_MOST_TEXT = 256 * 1024**2  # bytes of code, or of a graph
# Operators that read or write files, and those of any namespace but PyTorch's own and torchvision's.
_FILES = re.compile(rb"\b(from_file|save)\b")
_FOREIGN = re.compile(rb"\bops[\s\\]*\.[\s\\]*(?!(?:aten|prim|prims|quantized|torchvision)\b)(\w+)")
# torch.export writes lengths that depend on others as text, which PyTorch evaluates as Python.
_TOKEN = re.compile(r"\s*(?:(\d+(?:\.\d+)?)|([A-Za-z_]\w*)|('[A-Za-z0-9_.+-]{1,40}'|\*\*|//|[<>=!]=|[-+*/%(),<>&|~=]))")
_SYMBOL = re.compile(r"[a-z]{1,2}\d+")
_FUNCTIONS = frozenset({
    "FloorDiv", "ModularIndexing", "Where", "PythonMod", "Mod", "CleanDiv", "CeilToInt", "FloorToInt", "CeilDiv",
    "LShift", "RShift", "PowByNatural", "FloatPow", "FloatTrueDiv", "IntTrueDiv", "TruncToFloat", "TruncToInt",
    "RoundToInt", "RoundDecimal", "ToFloat", "Identity", "Max", "Min", "Abs", "Eq", "Ne", "Ge", "Gt", "Le", "Lt",
    "And", "Or", "Not", "floor", "ceiling", "true", "false", "True", "False", "Symbol", "Integer", "Float", "Rational",
    "Add", "Mul", "Pow", "positive", "negative", "nonnegative", "integer", "real", "precision", "evaluate", "Equality",
    "Unequality", "GreaterThan", "LessThan", "StrictGreaterThan", "StrictLessThan",
})  # fmt: skip


def check(path: Path, form: Form) -> None:
    """Raises Refused."""
    with opened(path) as archive:
        found: dict[str, Entry] = {}
        for entry in entries(archive):
            name = entry.name.partition("/")[2].lower()  # PyTorch finds files in either case
            if name in found:
                raise Refused("ARCHIVE_NAME", "another file's name differs in case alone", entry.name)
            _check_name(name)
            found[name] = entry
        left = _MOST_TEXT

        def read(entry: Entry) -> bytes:
            nonlocal left
            left -= entry.size
            if left < 0:
                raise Refused("ARCHIVE_TOO_LARGE", f"more than {_MOST_TEXT >> 20} MiB of code or graph")
            return archive.read(entry.inner)  # type: ignore[arg-type]

        for name, entry in found.items():
            if form is Form.TORCHSCRIPT and name.startswith("code/") and name.endswith(".py"):
                _check_code(name, read(entry))
            elif form is Form.TORCHSCRIPT and name.endswith(".pkl"):
                pickles.check(read(entry), name)
            elif form is Form.TORCH_EXPORT and name.endswith(".json"):
                _check_graph(name, read(entry))


def _check_name(name: str) -> None:
    if name.startswith("data/aotinductor/") or name.endswith((".so", ".dll", ".dylib", ".pyd")):
        raise Refused("COMPILED_CODE", "machine code is not loaded; push the exported program itself", name)
    if "custom_obj" in name or "opaque_obj" in name:
        raise Refused("PICKLED_OBJECT", "it holds an object that would have to be unpickled", name)


def _check_code(name: str, code: bytes) -> None:
    if found := _FILES.search(code):
        raise Refused("OPERATOR_FORBIDDEN", f"{found[1].decode()} reads or writes files", name)
    if found := _FOREIGN.search(code):
        raise Refused("OPERATOR_FORBIDDEN", f"operators of {found[1].decode()} are not served", name)


def _check_graph(name: str, text: bytes) -> None:
    try:
        graph = json.loads(text)
        for key, value in _fields(graph):
            if key == "use_pickle" and value is not False:
                raise Refused("PICKLED_OBJECT", "it holds a value that would have to be unpickled", name)
            if key == "expr_str":
                _check_expression(value, name)
            if key == "target" and isinstance(value, str) and _FILES.search(value.encode()):
                raise Refused("OPERATOR_FORBIDDEN", f"{value} reads or writes files", name)
    except (ValueError, RecursionError) as e:
        raise Refused("ARCHIVE_BROKEN", "a part is not the JSON it should be", name) from e


def _fields(value: Any) -> Iterator[tuple[str, Any]]:
    """Every key and value of a document, however deep."""
    waiting = [value]
    while waiting:
        found = waiting.pop()
        if isinstance(found, dict):
            yield from found.items()
            waiting += found.values()
        elif isinstance(found, list):
            waiting += found


def _check_expression(text: Any, name: str) -> None:
    at = 0
    while isinstance(text, str) and at < len(text.rstrip()):
        token = _TOKEN.match(text, at)
        word = token[2] if token else None
        if token is None or (word and not (_SYMBOL.fullmatch(word) or word in _FUNCTIONS)):
            break
        at = token.end()
    else:
        if isinstance(text, str):
            return
    raise Refused("EXPRESSION_FORBIDDEN", f"a length is not a formula: {str(text)[:100]!r}", name)
