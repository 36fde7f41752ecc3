"""Files that got past somebody's scanner, or harmed whoever opened them, by the advisory that tells of it; each built
here, harmless but for a file that it would make."""

import gzip
import io
import json
import lzma
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

from tests import graphs
from tests.robustness import artifacts
from tests.robustness.artifacts import archive, pickled

Made = Callable[[Path], bytes]  # by the file that must not appear


def checkpoint(witness: Path, **more: bytes) -> bytes:
    return archive({"m/data.pkl": pickled(witness, 2), "m/version": b"3\n"} | more)


def torchscript(data: bytes, **more: bytes) -> bytes:
    code = b"class M(Module):\n  def forward(self: __torch__.M, x: Tensor) -> Tensor:\n    return x\n"
    files = {"data.pkl": data, "constants.pkl": b"\x80\x02).", "code/__torch__.py": code, "version": b"3\n"} | more
    return archive({f"m/{name}": content for name, content in files.items()})


def patched(data: bytes, field: int, value: int, *, central: bool, size: str = "H") -> bytes:
    """A zip archive whose first file has another value at a place of its head, or of its entry in the directory."""
    made = bytearray(data)
    struct.pack_into(f"<{size}", made, (made.index(b"PK\1\2") if central else 0) + field, value)
    return bytes(made)


def renamed(data: bytes) -> bytes:
    """The first file's own head names another file than the directory does."""
    made = bytearray(data)
    length = struct.unpack_from("<H", made, 26)[0]
    made[30 : 30 + length] = b"x" * length
    return bytes(made)


def overlapping(count: int = 200) -> bytes:
    """Every entry of the directory is the same compressed megabyte (D. Fifield, "A better zip bomb", 2019)."""
    packed = zlib.compress(bytes(1 << 20), 9)[2:-4]
    crc, out, directory = zlib.crc32(bytes(1 << 20)), bytearray(), bytearray()
    out += struct.pack("<4sHHHHHIIIHH", b"PK\3\4", 20, 0, 8, 0, 0, crc, len(packed), 1 << 20, 6, 0) + b"a00000" + packed
    for i in range(count):
        directory += struct.pack(
            "<4sHHHHHHIIIHHHHHII", b"PK\1\2", 20, 20, 0, 8, 0, 0, crc, len(packed), 1 << 20, 6, 0, 0, 0, 0, 0, 0
        ) + f"a{i:05}".encode()  # fmt: skip
    at = len(out)
    return bytes(out + directory + struct.pack("<4sHHHHIIH", b"PK\5\6", 0, 0, count, count, len(directory), at, 0))


def many(count: int) -> bytes:
    """A zip archive of empty files, a directory of 52 bytes for each."""
    at, out, directory = 0, bytearray(), bytearray()
    for i in range(count):
        name = f"{i:06}".encode()
        out += struct.pack("<4sHHHHHIIIHH", b"PK\3\4", 20, 0, 0, 0, 0, 0, 0, 0, 6, 0) + name
        directory += (
            struct.pack("<4sHHHHHHIIIHHHHHII", b"PK\1\2", 20, 20, 0, 0, 0, 0, 0, 0, 0, 6, 0, 0, 0, 0, 0, at) + name
        )
        at += 36
    end = struct.pack("<4sQHHIIQQQQ", b"PK\6\6", 44, 45, 45, 0, 0, count, count, len(directory), at)
    end += struct.pack("<4sIQI", b"PK\6\7", 0, at + len(directory), 1)
    return bytes(
        out + directory + end + struct.pack("<4sHHHHIIH", b"PK\5\6", 0, 0, 0xFFFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0)
    )


def tarred(*members: tuple[str, bytes, str], mode: str = "w:gz") -> bytes:
    """Members by name, type (tarfile's) and target, or content."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as tar:  # type: ignore[call-overload]
        for name, kind, target in members:
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, target
            if kind == tarfile.REGTYPE:
                info.size = len(target)
                tar.addfile(info, io.BytesIO(target.encode()))
            else:
                tar.addfile(info)
    return buffer.getvalue()


def many_tarred(count: int) -> bytes:
    packer = zlib.compressobj(1, wbits=31)
    return b"".join([*(packer.compress(tarfile.TarInfo(str(i)).tobuf()) for i in range(count)), packer.flush()])


def savedmodel(*more: tuple[str, bytes, str]) -> bytes:
    return tarred(("saved_model.pb", tarfile.REGTYPE, "x"), *more)


def keras(config: object, weights: bytes = b"\x89HDF\r\n\x1a\n") -> bytes:
    return archive({
        "metadata.json": b"{}", "config.json": json.dumps(config).encode(), "model.weights.h5": weights,
    })  # fmt: skip


def npz(witness: Path) -> bytes:
    return archive({"a.npy": artifacts.object_array(witness)})


def gguf(tensors: int, keys: int, body: bytes = b"") -> bytes:
    return b"GGUF" + struct.pack("<IQQ", 3, tensors, keys) + body


def _text(text: bytes, length: int | None = None) -> bytes:
    return struct.pack("<Q", len(text) if length is None else length) + text


def gguf_tensor(*lengths: int, kind: int = 0, axes: int | None = None, offset: int = 0) -> bytes:
    head = _text(b"t") + struct.pack("<I", len(lengths) if axes is None else axes)
    return head + struct.pack(f"<{len(lengths)}Q", *lengths) + struct.pack("<IQ", kind, offset)


def safetensors(length: int, header: bytes = b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}') -> bytes:
    return struct.pack("<Q", length) + header + bytes(4)


LAMBDA = {"class_name": "Functional", "config": {"layers": [{"class_name": "Lambda", "config": {
    "function": ["4wEAAAAAAAAAAAAA", None, None]}}]}}  # fmt: skip
REACHES_OUT = {"module": "builtins", "class_name": "exec", "config": {"arguments": ["open('/tmp/harm', 'w')"]}}
REG, SYM, HARD, DEVICE, FIFO = tarfile.REGTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE

# The code with which each is refused, and how it is made.
SAMPLES: dict[str, tuple[str, Made]] = {
    # picklescan, modelscan, fickling: pickles
    "GHSA-jgw4-cr84-mqxg CVE-2025-10155: a pickle under another extension": ("NOT_ONNX", pickled),
    "a pickle of protocol 0, which has no magic number": ("NOT_ONNX", lambda w: pickled(w, 0)),
    "a pickle of protocol 1": ("NOT_ONNX", lambda w: pickled(w, 1)),
    "a pickle of protocol 5": ("NOT_ONNX", lambda w: pickled(w, 5)),
    "GHSA-9gvj-pp9x-gcfr: pickles one behind the other": ("NOT_ONNX", lambda w: pickled(w, 2) * 3),
    "harm before a pickle breaks": ("NOT_ONNX", lambda w: pickled(w)[:-1] + b"\xff"),
    "PyTorch's old form, pickles behind a magic number": ("NOT_ONNX", lambda w: (
        b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02M\xe9\x03." + pickled(w, 2))),
    "CVE-2025-32434: PyTorch's tar form": ("NOT_ONNX", lambda w: tarred(
        ("pickle", REG, "x"), ("storages", REG, "x"), ("tensors", REG, "x"), mode="w")),
    "a checkpoint": ("PICKLED_CHECKPOINT", checkpoint),
    "GHSA-769v-p64c-89pr CVE-2025-1889: a pickle of another name in an archive": ("NOT_ONNX", lambda w: archive(
        {"m/evil.dat": pickled(w, 2), "m/version": b"3"})),
    "the same in TorchScript's own place": ("PICKLED_OBJECT", lambda w: torchscript(pickled(w, 2))),
    "the same beside what is good": ("PICKLED_OBJECT", lambda w: torchscript(b"\x80\x02).", **{"x/y.pkl": pickled(w)})),
    "an object of a class of its own in TorchScript": ("PICKLED_OBJECT", lambda w: torchscript(
        b"\x80\x02).", **{"custom_objs/0.pkl": pickled(w)})),
    "machine code beside a program": ("COMPILED_CODE", lambda w: torchscript(
        b"\x80\x02).", **{"lib/x.so": b"\x7fELF"})),
    "GHSA-7q5r-7gvp-wc82 CVE-2025-1944: two names of one file in a zip": ("ARCHIVE_TAMPERED", lambda w: renamed(
        checkpoint(w))),
    "GHSA-w8jq-xcqf-f792 CVE-2025-1945: a flag of a zip's directory": ("ARCHIVE_BROKEN", lambda w: patched(
        checkpoint(w), 8, 1, central=True)),
    "the same before the file": ("ARCHIVE_TAMPERED", lambda w: patched(checkpoint(w), 6, 1, central=False)),
    "GHSA-mjqp-26hc-grxg CVE-2025-10156: a wrong checksum in a zip": ("ARCHIVE_BROKEN", lambda w: patched(
        patched(checkpoint(w), 16, 7, central=True, size="I"), 14, 7, central=False, size="I")),
    "a checksum that differs from the directory's": ("ARCHIVE_TAMPERED", lambda w: patched(
        checkpoint(w), 14, 7, central=False, size="I")),
    "a way of packing that differs from the directory's": ("ARCHIVE_TAMPERED", lambda w: patched(
        checkpoint(w), 8, 0, central=False)),
    "a size that differs from the directory's": ("ARCHIVE_TAMPERED", lambda w: patched(
        checkpoint(w), 22, 1, central=False, size="I")),
    "a way of packing that nobody knows": ("ARCHIVE_BROKEN", lambda w: patched(
        patched(checkpoint(w), 10, 99, central=True), 8, 99, central=False)),
    "two files of one name": ("ARCHIVE_NAME", lambda w: _twice(w)),
    "an archive in an archive": ("NOT_ONNX", lambda w: archive({"inner.zip": checkpoint(w)})),
    "an archive behind something else": ("NOT_ONNX", lambda w: b"\x89PNG\r\n\x1a\n" + checkpoint(w)),
    "an archive behind another one": ("ARCHIVE_TAMPERED", lambda w: archive({"a": b"b"}) + checkpoint(w)),
    "a 7z archive": ("NOT_ONNX", lambda w: b"7z\xbc\xaf\x27\x1c\x00\x04" + pickled(w)),
    "a RAR archive": ("NOT_ONNX", lambda w: b"Rar!\x1a\x07\x01\x00" + pickled(w)),
    "numpy.load: an array of objects": ("NOT_ONNX", artifacts.object_array),
    "numpy.load: the same in an archive": ("NOT_ONNX", npz),
    "joblib, packed by zlib": ("NOT_ONNX", lambda w: zlib.compress(pickled(w))),
    "joblib, packed by lzma": ("NOT_ONNX", lambda w: lzma.compress(pickled(w))),
    "joblib, packed by gzip": ("ARCHIVE_BROKEN", lambda w: gzip.compress(pickled(w))),
    # Keras, HDF5
    "CVE-2024-3660: a Lambda layer of Keras": ("KERAS_FILE", lambda w: keras(LAMBDA)),
    "CVE-2025-1550, CVE-2025-8747: a class of Keras' configuration": ("KERAS_FILE", lambda w: keras(REACHES_OUT)),
    "CVE-2025-9905: a Lambda layer in HDF5": ("NOT_ONNX", lambda w: b"\x89HDF\r\n\x1a\n" + bytes(64)),
    # TensorFlow: the operators are in test_frameworks and test_convert, where TensorFlow is
    "a SavedModel that is none": ("CONVERTER", lambda w: savedmodel()),
    # GGUF
    "CVE-2024-23496: the length of a text in GGUF": ("GGUF_INVALID", lambda w: gguf(0, 1, _text(b"k", 2**64 - 1))),
    "the length of a value": ("GGUF_CUT_OFF", lambda w: gguf(
        0, 1, _text(b"k") + struct.pack("<I", 8) + _text(b"", 2**64 - 1))),
    "CVE-2024-21836: more tensors in GGUF than can be": ("GGUF_INVALID", lambda w: gguf(2**64 - 1, 0)),
    "CVE-2024-23605: more keys than can be": ("GGUF_INVALID", lambda w: gguf(0, 2**61)),
    "CVE-2024-21802: more axes than can be": ("TENSOR_DIMENSIONS", lambda w: gguf(1, 0, gguf_tensor(4, axes=2**31))),
    "CVE-2024-21825: an array whose bytes overflow": ("GGUF_INVALID", lambda w: gguf(
        0, 1, _text(b"k") + struct.pack("<IIQ", 9, 11, 2**61 + 1))),
    "an array in an array": ("GGUF_INVALID", lambda w: gguf(
        0, 1, _text(b"k") + struct.pack("<IIQ", 9, 9, 1))),
    "CVE-2025-53630: tensors whose sizes overflow together": ("TENSOR_CUT_OFF", lambda w: gguf(
        2, 0, gguf_tensor(2**62, 4) + _text(b"u") + gguf_tensor(2**62, 4)[9:])),
    "a tensor of 2**256 weights": ("TENSOR_CUT_OFF", lambda w: gguf(1, 0, gguf_tensor(*[2**63] * 4))),
    "a tensor past the end": ("TENSOR_CUT_OFF", lambda w: gguf(1, 0, gguf_tensor(4, offset=2**63))),
    "a tensor of no weights": ("TENSOR_DIMENSIONS", lambda w: gguf(1, 0, gguf_tensor(0))),
    "a block that does not divide": ("TENSOR_DIMENSIONS", lambda w: gguf(1, 0, gguf_tensor(3, kind=2))),
    # safetensors
    "a header of safetensors that is longer than the file": ("NOT_ONNX", lambda w: safetensors(2**63)),
    "safetensors": ("NOT_ONNX", lambda w: safetensors(54)),
    "safetensors and a zip archive at once": ("NOT_ONNX", lambda w: safetensors(54) + checkpoint(w)),
    # ONNX
    "CVE-2022-25882: external data upwards": ("EXTERNAL_DATA", lambda w: artifacts.external("../../../etc/passwd")),
    "CVE-2024-27318: external data upwards, elsewhere": ("EXTERNAL_DATA", lambda w: artifacts.external(
        "a/../../../etc/x")),
    "the same, as Windows has it": ("EXTERNAL_DATA", lambda w: artifacts.external("..\\..\\x")),
    "CVE-2025-51480: external data that would be written over": ("EXTERNAL_DATA", lambda w: artifacts.external(
        str(w))),
    "CVE-2024-5187, CVE-2024-7776: an archive of a model that leads out": ("ARCHIVE_NAME", lambda w: tarred(
        ("../../root/.ssh/x", REG, "x"))),
    "a length of external data that is negative": ("EXTERNAL_DATA", lambda w: artifacts.external("x", length="-1")),
    # archives
    "zip slip": ("ARCHIVE_NAME", lambda w: archive({"../../up": b"x"})),
    "zip slip, absolute": ("ARCHIVE_NAME", lambda w: archive({str(w): b"x"})),
    "zip slip, as Windows has it": ("ARCHIVE_NAME", lambda w: archive({"..\\..\\up": b"x"})),
    "a drive": ("ARCHIVE_NAME", lambda w: archive({"C:up": b"x"})),
    "a name with NUL": ("ARCHIVE_NAME", lambda w: archive({"saved_model.pbX": b"x"}).replace(b"pbX", b"pb\0")),
    "a symbolic link": ("ARCHIVE_LINK", lambda w: savedmodel(("variables", SYM, "/etc"))),
    "a hard link": ("ARCHIVE_LINK", lambda w: savedmodel(("assets/x", HARD, "/etc/passwd"))),
    "CVE-2025-4517: a link and then a file below it": ("ARCHIVE_LINK", lambda w: savedmodel(
        ("assets", SYM, str(w.parent)), ("assets/witness", REG, "x"))),
    "a device": ("ARCHIVE_LINK", lambda w: savedmodel(("assets/x", DEVICE, ""))),
    "a pipe, which is never read to its end": ("ARCHIVE_LINK", lambda w: savedmodel(("assets/x", FIFO, ""))),
    "a bomb of overlapping files": ("ARCHIVE_TAMPERED", lambda w: overlapping()),
    "a million files": ("ARCHIVE_TOO_LARGE", lambda w: many(1_000_000)),
    "a hundred thousand files, in tar": ("ARCHIVE_TOO_LARGE", lambda w: many_tarred(100_000)),
    "a file that claims 8 EiB, in tar": ("ARCHIVE_TOO_LARGE", lambda w: _huge_tar()),
    # programs
    "an ELF program": ("NOT_ONNX", lambda w: b"\x7fELF" + bytes(60)),
    "a Windows program": ("NOT_ONNX", lambda w: b"MZ" + bytes(60)),
    "Python's compiled code": ("NOT_ONNX", lambda w: b"\xa7\r\r\n" + bytes(60)),
    "a model with a program behind it": ("NOT_ONNX", lambda w: graphs.tiny() + b"\x7fELF" + bytes(60)),
}  # fmt: skip


def _twice(witness: Path) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as made:
        for name in ("m/data.pkX", "m/data.pkl"):
            made.writestr(name, pickled(witness, 2))
    return buffer.getvalue().replace(b"pkX", b"pkl")


def _huge_tar() -> bytes:
    info = tarfile.TarInfo("saved_model.pb")
    info.size = 2**63 - 1
    return gzip.compress(info.tobuf(tarfile.GNU_FORMAT) + bytes(4096))
