"""What a model's file says of itself, read as validation reads it: nothing in it is run."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from services.cli.session import Refusal
from services.registry.validation.formats import ARCHIVE, GGUF, foreign, framework
from services.registry.validation.frameworks.archives import Form, form_of
from services.registry.validation.onnx_model import parse, signature
from services.registry.validation.report import Refused, Tensor

_TOKENS = {"input_ids", "attention_mask"}  # what an encoder takes


@dataclass(frozen=True)
class Seen:
    """`framework`: a name of the contract's. `parameters`: weights, 0 where the file does not tell. `data`: files that
    the model has its weights in. `inputs`: of what does not say them itself, None."""

    framework: str
    inputs: tuple[Tensor, ...] | None = None
    outputs: tuple[Tensor, ...] = ()
    parameters: int = 0
    size_bytes: int = 0
    data: tuple[str, ...] = ()
    title: str = ""
    license: str = ""
    category: str = ""
    task: str = ""
    text: bool = False
    tokenizer: str = ""  # of a graph that takes tokens: the file beside it that makes them

    @property
    def batched(self) -> bool:
        """Whether rows of several calls can be put together."""
        return bool(self.inputs) and all(t.shape[:1] == (-1,) for t in (*(self.inputs or ()), *self.outputs))


def look(file: Path) -> Seen:
    """Raises Refusal for what `mercat push` does not take."""
    try:
        if file.is_dir():
            if not (file / "saved_model.pb").is_file():
                raise Refusal(f"{file} holds no saved_model.pb; a folder is pushed where it is a SavedModel.")
            return Seen("tensorflow", size_bytes=sum(f.stat().st_size for f in file.rglob("*") if f.is_file()))
        size = file.stat().st_size
        kind = framework(file)
        if kind == GGUF:
            return _gguf(file, size)
        if kind == ARCHIVE and (form := form_of(file)):
            # What a scripted model takes is in its code alone; the other two say it, and validation reads it.
            return Seen(form.framework, () if form is Form.TORCHSCRIPT else None, size_bytes=size)
        if other := foreign(file):
            raise Refusal(f"{file} is {other}.", "see docs/publishing.md for what can be pushed")
        return _onnx(file, size)
    except Refused as e:
        raise Refusal(f"{file}: {e.finding.message} ({e.finding.code}).") from None
    except MemoryError:
        raise Refusal(f"{file} does not fit into memory.") from None


def _onnx(file: Path, size: int) -> Seen:
    model = parse(file)
    inputs, outputs = signature(model)
    count = 0
    data: dict[str, None] = {}
    for tensor in model.graph.initializer:
        elements = 1
        for length in tensor.dims:
            elements *= length
        count += elements
        data |= {entry.value: None for entry in tensor.external_data if entry.key == "location"}
    found = Seen("onnx", inputs, outputs, count, size, tuple(data))
    beside = file.parent / "tokenizer.json"
    if {t.name for t in inputs} >= _TOKENS and beside.is_file():
        return replace(found, category="nlp", task="text-embedding", text=True, tokenizer=beside.name)
    return found


def _gguf(file: Path, size: int) -> Seen:
    from services.registry.validation import gguf_file  # slow to import

    found = gguf_file.read(file)
    said = dict(_texts(found.metadata, "general.name", "general.license"))
    return Seen(
        "gguf", parameters=sum(t.rows * t.columns for t in found.tensors.values()), size_bytes=size,
        title=said.get("general.name", ""), license=said.get("general.license", ""), category="nlp",
        task="text-generation", text=True,
    )  # fmt: skip


def _texts(metadata: dict[str, Any], *keys: str) -> Iterator[tuple[str, str]]:
    for key in keys:
        if isinstance(value := metadata.get(key), str):
            yield key, value[:100]
