"""GGUF headers that claim what the file does not hold: refused by name, before memory is taken for it."""

import random
import struct
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest

from services.registry.validation import gguf_file, gguf_model
from services.registry.validation.report import Limits, Refused
from tests.decoders import tiny_gguf

GOOD = tiny_gguf(layers=1)
HUGE = 2**63
MOST_MEMORY = 16 << 20  # bytes, for headers of kilobytes, and one of megabytes


def text(value: str) -> bytes:
    return struct.pack("<Q", len(value)) + value.encode()


def header(tensors: int = 0, keys: int = 0, body: bytes = b"", version: int = 3) -> bytes:
    return b"GGUF" + struct.pack("<IQQ", version, tensors, keys) + body


def key(name: str, kind: int, value: bytes) -> bytes:
    return text(name) + struct.pack("<I", kind) + value


def tensor(name: str = "t", lengths: tuple[int, ...] = (32,), kind: int = 0, offset: int = 0) -> bytes:
    return text(name) + struct.pack(f"<I{len(lengths)}QIQ", len(lengths), *lengths, kind, offset)


def padded(data: bytes, more: int = 0) -> bytes:
    return data + bytes(-len(data) % 32 + more)


CASES: dict[str, tuple[str, Callable[[], bytes]]] = {
    "nothing at all": ("GGUF_INVALID", lambda: b""),
    "nothing after the magic": ("GGUF_CUT_OFF", lambda: b"GGUF"),
    "big-endian": ("GGUF_VERSION", lambda: b"GGUF" + struct.pack(">IQQ", 3, 0, 0)),
    "version 1": ("GGUF_VERSION", lambda: header(version=1)),
    "countless tensors": ("GGUF_INVALID", lambda: header(tensors=HUGE)),
    "countless keys": ("GGUF_INVALID", lambda: header(keys=HUGE)),
    "as many keys as may be, none there": ("GGUF_CUT_OFF", lambda: header(keys=10_000)),
    "as many tensors as may be, none there": ("GGUF_CUT_OFF", lambda: header(tensors=20_000)),
    "an endless key": ("GGUF_INVALID", lambda: header(keys=1, body=struct.pack("<Q", HUGE))),
    "an endless text": ("GGUF_CUT_OFF", lambda: header(keys=1, body=key("k", 8, struct.pack("<Q", HUGE)))),
    "a text that is not UTF-8": (
        "GGUF_INVALID", lambda: header(keys=1, body=key("k", 8, struct.pack("<Q", 1) + b"\xff")),
    ),
    "an endless array": ("GGUF_INVALID", lambda: header(keys=1, body=key("k", 9, struct.pack("<IQ", 4, HUGE)))),
    "an array longer than the file": (
        "GGUF_CUT_OFF", lambda: header(keys=1, body=key("k", 9, struct.pack("<IQ", 10, 4_000_000))),
    ),
    "texts that are not there": (
        "GGUF_CUT_OFF", lambda: header(keys=1, body=key("k", 9, struct.pack("<IQ", 8, 4_000_000))),
    ),
    "array after array": (
        "GGUF_INVALID",
        lambda: header(keys=5, body=b"".join(
            key(f"k{i}", 9, struct.pack("<IQ", 0, 1_000_000) + bytes(1_000_000)) for i in range(5)
        )),
    ),
    "an array of arrays": (
        "GGUF_INVALID", lambda: header(keys=1, body=key("k", 9, struct.pack("<IQ", 9, 1) + bytes(64))),
    ),
    "a value of no type": ("GGUF_INVALID", lambda: header(keys=1, body=key("k", 99, bytes(8)))),
    "a key twice": ("GGUF_INVALID", lambda: header(keys=2, body=key("k", 4, bytes(4)) * 2)),
    "an alignment of nothing": ("GGUF_INVALID", lambda: header(keys=1, body=key("general.alignment", 4, bytes(4)))),
    "an alignment of a text": ("GGUF_INVALID", lambda: header(keys=1, body=key("general.alignment", 8, text("32")))),
    "no axes": ("TENSOR_DIMENSIONS", lambda: header(tensors=1, body=tensor(lengths=()))),
    "countless axes": ("TENSOR_DIMENSIONS", lambda: header(tensors=1, body=text("t") + struct.pack("<I", 2**32 - 1))),
    "a length of nothing": ("TENSOR_DIMENSIONS", lambda: padded(header(tensors=1, body=tensor(lengths=(32, 0))))),
    "half a block": ("TENSOR_DIMENSIONS", lambda: padded(header(tensors=1, body=tensor(lengths=(16,), kind=8)))),
    "lengths whose product overflows": (
        "TENSOR_CUT_OFF", lambda: padded(header(tensors=1, body=tensor(lengths=(2**62, 2**62, 2**62, 4))), 128),
    ),
    "an offset past the end": ("TENSOR_CUT_OFF", lambda: padded(header(tensors=1, body=tensor(offset=HUGE)), 128)),
    "an offset that wraps around": (
        "TENSOR_CUT_OFF", lambda: padded(header(tensors=1, body=tensor(offset=2**64 - 128)), 128),
    ),
    "two tensors in one place": (
        "GGUF_INVALID", lambda: padded(header(tensors=2, body=tensor("a") + tensor("b")), 128),
    ),
    "a tensor twice": (
        "GGUF_INVALID", lambda: padded(header(tensors=2, body=tensor() + tensor(offset=128)), 256),
    ),
    "weights of an old type": ("TENSOR_TYPE_UNKNOWN", lambda: padded(header(tensors=1, body=tensor(kind=4)), 128)),
    "weights of a type with another name": (
        "TENSOR_TYPE_UNKNOWN", lambda: padded(header(tensors=1, body=tensor(kind=16, lengths=(256,))), 128),
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_refused_by_name_and_cheaply(tmp_path: Path, case: str) -> None:
    code, make = CASES[case]
    path = tmp_path / "model.gguf"
    path.write_bytes(make())
    tracemalloc.start()
    try:
        with pytest.raises(Refused) as caught:
            gguf_file.read(path)
        assert tracemalloc.get_traced_memory()[1] < MOST_MEMORY
    finally:
        tracemalloc.stop()
    assert caught.value.finding.code == code, caught.value.finding


def test_the_type_that_is_not_known_is_named(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(padded(header(tensors=1, body=tensor("blk.0.attn_q.weight", kind=16, lengths=(256,))), 128))
    with pytest.raises(Refused) as caught:
        gguf_file.read(path)
    assert "IQ2_XXS" in caught.value.finding.message
    assert caught.value.finding.where == "blk.0.attn_q.weight"


def test_wherever_it_is_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    for size in range(4, len(GOOD) - 32, 97):
        path.write_bytes(GOOD[:size])
        with pytest.raises(Refused) as caught:
            gguf_file.read(path)
        assert caught.value.finding.code in ("GGUF_CUT_OFF", "TENSOR_CUT_OFF", "GGUF_INVALID"), size


def test_bytes_that_were_changed_are_a_finding_or_a_model(tmp_path: Path) -> None:
    """Only Refused may come out, whatever the header says. Weights are left as they are: any are fit."""
    path, rng = tmp_path / "model.gguf", random.Random(5)
    codes: list[str] = []
    end = GOOD.index(b"output_norm") + 100
    for _ in range(300):
        data = bytearray(GOOD)
        for _ in range(rng.choice((1, 2, 5))):
            data[rng.randrange(end)] = rng.choice((0, 1, 128, 255))
        path.write_bytes(data)
        try:
            gguf_model.convert(path, tmp_path / "model.onnx")
        except Refused as refused:
            codes.append(refused.finding.code)
    assert 0 < len(codes) < 300
    assert len(set(codes)) > 3


def test_a_context_that_fills_the_disk_is_refused(tmp_path: Path) -> None:
    path, made = tmp_path / "model.gguf", tmp_path / "made.onnx"
    path.write_bytes(tiny_gguf(layers=1, context=1 << 20, hidden=64, heads=1, kv_heads=1))
    with pytest.raises(Refused) as caught:
        gguf_model.examine(path, made, Limits(artifact_bytes=64 << 20))
    assert caught.value.finding.code == "FILE_TOO_LARGE"
    assert not made.exists()
