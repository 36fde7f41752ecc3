"""An ONNX file's own entries, `metadata_props`, read without its graph: a ModelProto's fields are walked over, whatever
they hold (https://protobuf.dev/programming-guides/encoding/, https://github.com/onnx/onnx/blob/main/onnx/onnx.proto)."""

from pathlib import Path
from typing import BinaryIO

_METADATA = 14  # ModelProto.metadata_props, of StringStringEntryProto: key = 1, value = 2
_MOST = 64 << 20  # bytes of one entry


def read(path: Path) -> dict[str, str]:
    """The entries by key; of several of one key, the last. Raises ValueError when it is no such message, OSError."""
    found: dict[str, str] = {}
    size = path.stat().st_size
    with path.open("rb") as file:
        while file.tell() < size:
            field, kind = divmod(_varint(file), 8)
            length = _skip(file, kind)
            if length is None:
                continue
            if length > size - file.tell():
                raise ValueError("a field that ends after the file")
            if field == _METADATA and length <= _MOST:
                key, value = _entry(file.read(length))
                found[key] = value
            else:
                file.seek(length, 1)
    return found


def entry(key: str, value: str) -> bytes:
    """An entry as bytes: appended to an ONNX file, it is one of that file's."""
    fields = b"".join(_field(number, text.encode()) for number, text in ((1, key), (2, value)))
    return _field(_METADATA, fields)


def _field(number: int, data: bytes) -> bytes:
    return _written(number << 3 | 2) + _written(len(data)) + data


def _written(value: int) -> bytes:
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _skip(file: BinaryIO, kind: int) -> int | None:
    """Passes over a field of fixed size; answers the length of any other, which follows."""
    if kind == 2:
        return _varint(file)
    if kind == 0:
        _varint(file)
    elif kind in (1, 5):
        file.seek(8 if kind == 1 else 4, 1)
    else:
        raise ValueError("no ONNX file")
    return None


def _varint(file: BinaryIO) -> int:
    value = shift = 0
    while True:
        byte = file.read(1)
        if not byte or shift > 63:
            raise ValueError("no ONNX file")
        value |= (byte[0] & 0x7F) << shift
        if byte[0] < 0x80:
            return value
        shift += 7


def _entry(data: bytes) -> tuple[str, str]:
    texts = {1: "", 2: ""}
    at = 0
    while at < len(data):
        tag, at = _number(data, at)
        length, at = _number(data, at)
        if tag & 7 != 2 or at + length > len(data):
            raise ValueError("no entry of an ONNX file")
        texts[tag >> 3] = data[at : at + length].decode(errors="replace")
        at += length
    return texts[1], texts[2]


def _number(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while at < len(data) and shift <= 63:
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at
    raise ValueError("no entry of an ONNX file")
