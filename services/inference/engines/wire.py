"""What a worker and its engine process say to each other, over a socket between the two.

A frame is its length, its kind, the number of the question it belongs to, and its body. Nothing in a body is code: what
comes from a process that runs other people's graphs is not trusted to be more than tensors and text."""

import struct
from collections.abc import Iterator, Sequence

import numpy as np

from services.common.tensors import DTYPES, Array, to_raw

HEAD = struct.Struct("<IBI")  # octets of the body, kind, question
LOAD, RUN, CANCEL, UNLOAD = 1, 2, 3, 4
DONE, REFUSED, FAILED = 11, 12, 13
_TENSOR = struct.Struct("<HBBQ")  # index of the name, datatype, axes, octets
_RUN = struct.Struct("<IHH")  # model, outputs wanted, inputs
_TYPES = list(DTYPES.values())
_CODES = {dtype: code for code, dtype in enumerate(_TYPES)}
_TEXT = _CODES[DTYPES["BYTES"]]


def frame(kind: int, question: int, *body: bytes) -> bytes:
    return b"".join((HEAD.pack(sum(map(len, body)), kind, question), *body))


def tensor(index: int, array: Array) -> tuple[bytes, bytes]:
    """A tensor's head and bytes."""
    code = _CODES.get(array.dtype, _TEXT)
    data = to_raw(array)
    return _TENSOR.pack(index, code, array.ndim, len(data)) + struct.pack(f"<{array.ndim}q", *array.shape), data


def tensors(body: bytes, at: int = 0) -> Iterator[tuple[int, Array]]:
    """(index, array) of each tensor; arrays are views of the body. Raises ValueError when it is none of ours."""
    while at < len(body):
        index, code, axes, size = _TENSOR.unpack_from(body, at)
        at += _TENSOR.size
        shape = struct.unpack_from(f"<{axes}q", body, at)
        at += 8 * axes
        if at + size > len(body) or code >= len(_TYPES):
            raise ValueError("a tensor that ends after its frame")
        if code == _TEXT:
            yield index, _strings(body[at : at + size], shape)
        else:
            count = size // _TYPES[code].itemsize
            yield index, np.frombuffer(body, _TYPES[code], count, at).reshape(shape)
        at += size


def _strings(raw: bytes, shape: Sequence[int]) -> Array:
    found: list[str] = []
    at = 0
    while at < len(raw):
        (length,) = struct.unpack_from("<I", raw, at)
        found.append(raw[at + 4 : at + 4 + length].decode(errors="replace"))
        at += 4 + length
    array = np.empty(len(found), object)
    array[:] = found
    return array.reshape(shape)


def question(model: int, wanted: Sequence[int], inputs: Sequence[tuple[int, Array]]) -> list[bytes]:
    """The body of a RUN."""
    parts = [_RUN.pack(model, len(wanted), len(inputs)), struct.pack(f"<{len(wanted)}H", *wanted)]
    for index, array in inputs:
        parts += tensor(index, array)
    return parts


def asked(body: bytes) -> tuple[int, Sequence[int], list[tuple[int, Array]]]:
    """What `question` said."""
    model, wanted, _ = _RUN.unpack_from(body)
    at = _RUN.size + 2 * wanted
    return model, struct.unpack_from(f"<{wanted}H", body, _RUN.size), list(tensors(body, at))
