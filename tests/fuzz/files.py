"""Targets that read files of models."""

import contextlib
import io
import pickle
import struct
import tempfile
import zipfile
from pathlib import Path
from typing import Any

from services.registry.validation import formats, gguf_file
from services.registry.validation.frameworks import archives, pickles
from services.registry.validation.report import Refused as NotAModel
from tests.decoders import tiny_gguf
from tests.fuzz.target import Target


def _file() -> Path:
    folder = Path("/dev/shm")
    return Path(tempfile.mkstemp(dir=folder if folder.is_dir() else None, prefix="mercat-fuzz-")[1])


def gguf() -> Target:
    place = _file()

    def run(data: bytes) -> None:
        place.write_bytes(data)
        formats.foreign(place)
        with contextlib.suppress(NotAModel):
            gguf_file.read(place)

    return Target(run, [tiny_gguf(layers=1)[:16_384], b"GGUF" + struct.pack("<IQQ", 3, 0, 0)], 16_384)


def archive() -> Target:
    place = _file()

    def run(data: bytes) -> None:
        place.write_bytes(data)
        formats.foreign(place)
        formats.framework(place)
        with contextlib.suppress(NotAModel):
            archives.form_of(place)

    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as made:
        for name in ("model/data.pkl", "model/version", "saved_model.pb", "variables/variables.index"):
            made.writestr(name, b"x" * 20)
    return Target(run, [packed.getvalue(), packed.getvalue()[:200], b"\x1f\x8b\x08" + bytes(20)], 4096)


class _Named(pickle.Unpickler):
    """Imports nothing; knows what it was asked for."""

    def __init__(self, data: bytes) -> None:
        super().__init__(io.BytesIO(data))
        self.names: set[str] = set()

    def find_class(self, module: str, name: str) -> Any:
        self.names.add(f"{module}.{name}")
        return type("Nothing", (), {"__init__": lambda *_: None, "__setstate__": lambda *_: None})

    def persistent_load(self, pid: Any) -> None:
        return None


def pickled() -> Target:
    """What is let through, Python's own unpickler takes for the names that were seen, and for no others."""
    torch = b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n(ctorch\nFloatStorage\nX\x01\x00\x00\x000tQK\x00)Rq\x00h\x00."
    own = b"\x80\x02c__torch__.m\nM\n)\x81}q\x01X\x01\x00\x00\x00w](K\x01\x88eccollections\nOrderedDict\n)Rsb."

    def run(data: bytes) -> None:
        seen = set(pickles.imported(data))
        try:
            pickles.check(data, "")
        except NotAModel:
            return
        unpickler = _Named(data)
        with contextlib.suppress(Exception):  # what TorchScript would not make sense of either
            unpickler.load()
        assert len(seen) == pickles.MOST_SHOWN or unpickler.names <= seen, unpickler.names - seen
        assert all(name.startswith(("__torch__", "torch", "collections.OrderedDict")) for name in unpickler.names)

    return Target(run, [torch, own, pickle.dumps({"a": [1, (2.5, None)]}, 2), b"\x80\x02cos\nsystem\n)R."], 1024)
