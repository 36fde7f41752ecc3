"""Makes one ONNX file of a model and the files that belong to it: values that lie in files of their own come inside,
and so does a tokenizer. In a child of its own: `python -m services.registry.validation.bundle FILE MADE FILES LIMITS`,
with FILES a JSON list of [path, name, role]."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from services.registry.validation.answering import answer
from services.registry.validation.report import DATA, TOKENIZER, File, Limits, Refused, Report

_KEYS = {"location", "offset", "length", "checksum", "basepath"}


def make(path: Path, made: Path, files: list[File], limits: Limits) -> Report:
    """Writes the whole. Raises Refused, MemoryError."""
    from services.registry.validation import onnx_model
    from services.registry.validation.formats import foreign

    if kind := foreign(path):
        raise Refused("NOT_ONNX", f"this is {kind}; files beside it belong to ONNX models only")
    total = sum(Path(p).stat().st_size for p in {str(path), *(file.path for file in files)})
    if total > limits.artifact_bytes:
        raise Refused("FILE_TOO_LARGE", f"together they have {total:,} bytes; at most {limits.artifact_bytes:,}")
    model = onnx_model.parse(path)
    data = {file.name: Path(file.path) for file in files if file.role == DATA}
    used: set[str] = set()
    left = limits.artifact_bytes  # a file that many tensors name is as large as all of them
    for tensor in _tensors(model, limits):
        if tensor.data_location == 1 or tensor.external_data:
            name, value = _value(tensor, data, limits, left)
            left -= len(value)
            used.add(name)
            tensor.ClearField("external_data")
            tensor.ClearField("data_location")
            tensor.raw_data = value
    if unused := sorted(set(data) - used):
        raise Refused("FILE_UNUSED", "no tensor of the model lies in this file", unused[0])
    for file in files:
        if file.role == TOKENIZER:
            _add_tokenizer(model, Path(file.path).read_bytes(), file.name)
    if (size := model.ByteSize()) > limits.artifact_bytes:
        raise Refused("FILE_TOO_LARGE", f"together they have {size:,} bytes; at most {limits.artifact_bytes:,}")
    made.write_bytes(model.SerializeToString())
    return Report(made=True)


def _tensors(model: Any, limits: Limits) -> Iterator[Any]:
    from services.registry.validation import onnx_model

    training = [g for info in model.training_info for g in (info.initialization, info.algorithm)]
    for outer in (model.graph, *model.functions, *training):
        for body in onnx_model.bodies(outer, 0, limits):
            yield from onnx_model.tensors(body)


def _value(tensor: Any, data: dict[str, Path], limits: Limits, left: int) -> tuple[str, bytes]:
    """The file in which a tensor's values lie, and these. What the model says of either is held against the files that
    there are and the tensor's own size: no path is ever made of it."""
    from services.registry.validation import onnx_model

    said = {entry.key: entry.value for entry in tensor.external_data}
    name = said.get("location", "")
    if name not in data:
        raise Refused(
            "EXTERNAL_DATA", f"its values lie in {name[:200]!r}, which is no file of this version", tensor.name
        )
    if len(said) != len(tensor.external_data) or not set(said) <= _KEYS:
        raise Refused("EXTERNAL_DATA", "it says twice, or strangely, where its values lie", tensor.name)
    if min(tensor.dims, default=0) < 0:
        raise Refused("TENSOR_DIMENSIONS", "a dimension is negative", tensor.name)
    needed = onnx_model.size_of(tensor, limits)
    if needed is None or needed > left:
        raise Refused("TENSOR_TOO_LARGE", "it claims more than a model may have", tensor.name)
    held = data[name].stat().st_size
    offset, length = _number(said.get("offset", "0"), tensor), _number(said.get("length", str(needed)), tensor)
    if length != needed:
        raise Refused("EXTERNAL_DATA", f"it needs {needed:,} bytes and names {length:,}", tensor.name)
    if offset + length > held:
        text = f"its values end at {offset + length:,} of a file of {held:,} bytes"
        raise Refused("TENSOR_CUT_OFF", text, tensor.name)
    with data[name].open("rb") as file:
        file.seek(offset)
        return name, file.read(length)


def _number(text: str, tensor: Any) -> int:
    if not (text.isascii() and text.isdigit()) or len(text) > 18:
        raise Refused("EXTERNAL_DATA", f"where its values lie is no number: {text[:40]!r}", tensor.name)
    return int(text)


def _add_tokenizer(model: Any, text: bytes, name: str) -> None:
    """Makes an encoder of a model that says nothing of texts itself."""
    from tokenizers import Tokenizer

    from services.common.text_model import ENCODER, TEXT_KEY, TOKENIZER_KEY, TextConfig

    if any(entry.key in (TEXT_KEY, TOKENIZER_KEY) for entry in model.metadata_props):
        raise Refused("TOKENIZER_INVALID", "the model has a tokenizer inside; give one of the two", name)
    if any(value.name.startswith("past_key_values.") for value in model.graph.input):
        said = "a decoder takes more than a tokenizer: put it inside with `mercat push --tokenizer --stop`"
        raise Refused("TEXT_CONFIG_INVALID", said, name)
    try:
        tokenizer = Tokenizer.from_str(text.decode())
        context = int((json.loads(text).get("truncation") or {}).get("max_length", 0))
    except Exception:  # the library raises plain ones
        raise Refused("TOKENIZER_INVALID", "it is no tokenizer.json", name) from None
    if not context:
        raise Refused("TOKENIZER_INVALID", "it does not say how long a text may be (truncation.max_length)", name)
    vocabulary = max(tokenizer.get_vocab().values(), default=0) + 1
    config = TextConfig(kind=ENCODER, context=context, vocabulary=vocabulary)
    model.metadata_props.add(key=TOKENIZER_KEY, value=text.decode())
    model.metadata_props.add(key=TEXT_KEY, value=config.to_json())


def _work(arguments: list[str], limits: Limits) -> Report:
    from services.registry.validation.confine import start_nothing
    from services.registry.validation.onnx_model import parse  # with all its libraries

    assert parse is not None
    start_nothing()
    path, made, files = arguments
    try:
        return make(Path(path), Path(made), [File(*file) for file in json.loads(files)], limits)
    except Refused as e:
        return Report(findings=(e.finding,))


if __name__ == "__main__":
    answer(_work)
