"""Files that got past somebody's scanner, or harmed whoever opened them, by the advisory that tells of it; each built
here, harmless but for a file that it would make."""

import base64
import bz2
import gzip
import json
import lzma
import pickle
import struct
import tarfile
import zlib
from collections.abc import Callable
from pathlib import Path

from tests import decoders, graphs
from tests.robustness import artifacts
from tests.robustness.artifacts import archive, pickled
from tests.robustness.tampered import (
    checkpoint,
    commented,
    huge_tar,
    many,
    many_tarred,
    overlapping,
    patched,
    renamed,
    savedmodel,
    tarred,
    torchscript,
    twice,
    two_names,
    unlisted,
)

Made = Callable[[Path], bytes]  # by the file that must not appear


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


def key(name: bytes, kind: int, value: bytes) -> bytes:
    """A key of GGUF and its value."""
    return _text(name) + struct.pack("<I", kind) + value


def templated(template: str) -> bytes:
    """A decoder in GGUF with this chat template."""
    return decoders.tiny_gguf(layers=1, metadata={"tokenizer.chat_template": template})


def layer(name: str, **config: object) -> dict[str, object]:
    """Keras' configuration of a model of one layer."""
    return {"class_name": "Sequential", "config": {"layers": [{"class_name": name, "config": config}]}}


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
    "two files of one name": ("ARCHIVE_NAME", lambda w: twice(w)),
    "two files whose names differ in case, which PyTorch takes for one": ("ARCHIVE_NAME", lambda w: torchscript(
        b"\x80\x02).", **{"DATA.pkl": pickled(w, 2)})),
    "a pickle in capitals, which PyTorch finds": ("PICKLED_OBJECT", lambda w: torchscript(
        b"\x80\x02).", **{"X.PKL": pickled(w, 2)})),
    "machine code in capitals": ("COMPILED_CODE", lambda w: torchscript(
        b"\x80\x02).", **{"lib/X.SO": b"\x7fELF"})),
    "a file that the directory does not name": ("ARCHIVE_TAMPERED", unlisted),
    "an archive in another one's comment": ("ARCHIVE_TAMPERED", commented),
    "a file with a second name": ("ARCHIVE_TAMPERED", two_names),
    "something behind an archive": ("ARCHIVE_TAMPERED", lambda w: archive({"a": b"b"}) + pickled(w)),
    "a pickle in a pickle, modelscan issue 267": ("NOT_ONNX", lambda w: pickle.dumps(_Inner(pickled(w)))),
    "a pickle that is run by BUILD": ("PICKLED_OBJECT", lambda w: torchscript(
        b"\x80\x02cnumpy\nprod\nNcnumpy\ncore._internal.sys.modules\n\x86b.")),
    "an archive in an archive": ("NOT_ONNX", lambda w: archive({"inner.zip": checkpoint(w)})),
    "an archive behind something else": ("NOT_ONNX", lambda w: b"\x89PNG\r\n\x1a\n" + checkpoint(w)),
    "an archive behind another one": ("ARCHIVE_TAMPERED", lambda w: archive({"a": b"b"}) + checkpoint(w)),
    "nullifAI: a 7z archive of a pickle that breaks": ("NOT_ONNX", lambda w: (
        b"7z\xbc\xaf\x27\x1c\x00\x04" + pickled(w)[:-1] + b"\xff")),
    "nullifAI: a pickle that breaks, in PyTorch's archive": ("PICKLED_CHECKPOINT", lambda w: archive(
        {"m/data.pkl": pickled(w, 2)[:-1] + b"\xff", "m/version": b"3\n"})),
    "packed by bzip2": ("NOT_ONNX", lambda w: bz2.compress(pickled(w))),
    "packed by Zstandard": ("NOT_ONNX", lambda w: b"\x28\xb5\x2f\xfd" + pickled(w)),
    "NeMo: YAML that names what is to be called": ("NOT_ONNX", lambda w: tarred(
        ("model_config.yaml", REG, "_target_: os.system"), ("model_weights.ckpt", REG, "x"), mode="w")),
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
    "CVE-2025-9906: Keras' safe mode, turned off by the file": ("KERAS_FILE", lambda w: keras(
        {"module": "keras.config", "class_name": "function", "config": "enable_unsafe_deserialization"})),
    "CVE-2025-12058: a vocabulary that is read from elsewhere": ("KERAS_FILE", lambda w: keras(
        layer("StringLookup", vocabulary="/etc/passwd"))),
    "CVE-2025-49655: a module of PyTorch in Keras, pickled": ("KERAS_FILE", lambda w: keras(
        layer("TorchModuleWrapper", module=base64.b64encode(pickled(w)).decode()))),
    "CVE-2026-1462: a SavedModel that Keras loads from elsewhere": ("KERAS_FILE", lambda w: keras(
        layer("TFSMLayer", filepath=str(w.parent), call_endpoint="serve"))),
    "CVE-2025-12060: an archive of Keras that leads out": ("ARCHIVE_NAME", lambda w: tarred(("../x", REG, "x"))),
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
    "CVE-2026-27940: so many tensors that their heads overflow": ("GGUF_INVALID", lambda w: gguf(2**64 // 368 + 1, 0)),
    "CVE-2026-33298: weights whose count overflows, in little": ("TENSOR_CUT_OFF", lambda w: gguf(
        1, 0, gguf_tensor(2**32, 2**32, 2**30, 4))),
    "CVE-2026-7482: more weights than the file has": ("TENSOR_CUT_OFF", lambda w: gguf(
        1, 0, gguf_tensor(1 << 20, 64)) + bytes(64)),
    "CVE-2024-25664, -25667: keys and tensors that are not there": ("GGUF_CUT_OFF", lambda w: gguf(3, 10_000)),
    "CVE-2024-25665: an array of a type that is none": ("GGUF_INVALID", lambda w: gguf(
        0, 1, key(b"k", 9, struct.pack("<IQ", 99, 1)))),
    "CVE-2024-25666: an array of texts that are not there": ("GGUF_CUT_OFF", lambda w: gguf(
        0, 1, key(b"k", 9, struct.pack("<IQ", 8, 1000)))),
    "CVE-2024-32878: a value that is cut off": ("GGUF_CUT_OFF", lambda w: gguf(0, 1, key(b"k", 12, b""))),
    "weights of a type below zero": ("TENSOR_TYPE_UNKNOWN", lambda w: gguf(1, 0, gguf_tensor(4, kind=2**32 - 1))),
    "an alignment of nothing": ("GGUF_INVALID", lambda w: gguf(0, 1, key(
        b"general.alignment", 4, struct.pack("<I", 0)))),
    "a key twice": ("GGUF_INVALID", lambda w: gguf(0, 2, key(b"k", 7, b"\1") * 2)),
    "a tensor of 2**256 weights": ("TENSOR_CUT_OFF", lambda w: gguf(1, 0, gguf_tensor(*[2**63] * 4))),
    "a tensor past the end": ("TENSOR_CUT_OFF", lambda w: gguf(1, 0, gguf_tensor(4, offset=2**63))),
    "a tensor of no weights": ("TENSOR_DIMENSIONS", lambda w: gguf(1, 0, gguf_tensor(0))),
    "a block that does not divide": ("TENSOR_DIMENSIONS", lambda w: gguf(1, 0, gguf_tensor(3, kind=2))),
    "CVE-2024-34359: a chat template that climbs out": ("CHAT_TEMPLATE_INVALID", lambda w: templated(
        "{{ cycler.__init__.__globals__.os.popen('touch " + str(w) + "').read() }}")),
    "CVE-2024-56326, CVE-2025-27516: one that climbs out by format": ("CHAT_TEMPLATE_INVALID", lambda w: templated(
        "{{ ('{0.__class__.__base__.__subclasses__}'|attr('format'))(messages).x.y }}")),
    "a chat template that writes more than there is memory": ("CHAT_TEMPLATE_INVALID", lambda w: templated(
        "{{ 'x' * 10**12 }}")),
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
    "CVE-2026-27489, CVE-2026-34447: external data below a link": ("EXTERNAL_DATA", lambda w: artifacts.external(
        "link/passwd")),
    "CVE-2026-34446: external data that is another file's name": ("EXTERNAL_DATA", lambda w: artifacts.external(
        "model.bin", offset="0", length="64")),
    "CVE-2026-34445: external data with attributes of its own": ("EXTERNAL_DATA", lambda w: artifacts.external(
        "x", __class__="os", basepath="/etc")),
    "an offset of external data past the end": ("EXTERNAL_DATA", lambda w: artifacts.external(
        "x", offset=str(2**64), length="4")),
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
    "a file that claims 8 EiB, in tar": ("ARCHIVE_TOO_LARGE", lambda w: huge_tar()),
    # programs
    "an ELF program": ("NOT_ONNX", lambda w: b"\x7fELF" + bytes(60)),
    "a Windows program": ("NOT_ONNX", lambda w: b"MZ" + bytes(60)),
    "Python's compiled code": ("NOT_ONNX", lambda w: b"\xa7\r\r\n" + bytes(60)),
    "a program that is an archive, too": ("NOT_ONNX", lambda w: b"MZqFpD='\n" + bytes(64) + checkpoint(w)),
    "TensorFlow Lite": ("NOT_ONNX", lambda w: b"\x1c\0\0\0TFL3" + bytes(60)),
    "a script behind a BOM": ("NOT_ONNX", lambda w: b"\xef\xbb\xbf#!/bin/sh\ntouch " + str(w).encode()),
    "XML that names a file": ("NOT_ONNX", lambda w: (
        b'<?xml version="1.0"?><!DOCTYPE x [<!ENTITY e SYSTEM "file:///etc/passwd">]><PMML>&e;</PMML>')),
    "a model with a program behind it": ("NOT_ONNX", lambda w: graphs.tiny() + b"\x7fELF" + bytes(60)),
}  # fmt: skip


class _Inner:
    """A pickle that has another one unpickled."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def __reduce__(self) -> tuple[object, ...]:
        return pickle.loads, (self._data,)
