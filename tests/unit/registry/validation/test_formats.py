"""What is said of files that are something else."""

import gzip
import io
import pickle
import struct
import tarfile
from pathlib import Path

import numpy as np
import pytest

from services.registry.validation.formats import foreign
from tests import graphs
from tests.robustness import artifacts


def _tar() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("model.onnx"), io.BytesIO())
    return buffer.getvalue()


def _npy() -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.zeros(3))
    return buffer.getvalue()


HEADER = b'{"w":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}'
FOREIGN = {
    "a PyTorch archive (it holds a pickle)": artifacts.archive({"archive/data.pkl": b"."}),
    "a NumPy archive": artifacts.archive({"w.npy": b""}),
    "a zip archive": artifacts.archive({"readme": b""}),
    "a broken zip archive": b"PK\x03\x04" + bytes(64),
    "a Python pickle": pickle.dumps([1, 2, 3], 4),
    "a GGUF model": b"GGUF" + struct.pack("<IQQ", 3, 0, 0),
    "a TensorFlow Lite model": b"\x1c\0\0\0TFL3" + bytes(64),
    "a safetensors file, which holds weights and no graph": struct.pack("<Q", len(HEADER)) + HEADER + bytes(4),
    "an HDF5 file (Keras?)": b"\x89HDF\r\n\x1a\n" + bytes(64),
    "an ELF program": Path("/proc/self/exe").read_bytes()[:4096] if Path("/proc/self/exe").exists() else b"\x7fELF",
    "a script": b"#!/bin/sh\n",
    "a gzip archive": gzip.compress(b"x"),
    "a tar archive": _tar(),
    "a NumPy array": _npy(),
    "an empty file": b"",
}


@pytest.mark.parametrize("name", FOREIGN)
def test_named_for_what_they_are(name: str, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(FOREIGN[name])
    assert foreign(path) == name


def test_an_onnx_model_is_one_by_any_name(tmp_path: Path) -> None:
    path = tmp_path / "archive.zip"
    path.write_bytes(graphs.tiny())
    assert foreign(path) == ""
