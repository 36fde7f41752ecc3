"""What a file really is, by its content; names and extensions say nothing."""

import stat
import zipfile
from pathlib import Path

from services.registry.validation.frameworks.archives import is_archive
from services.registry.validation.frameworks.pickles import told

_LOOKED_AT = 4 * 1024 * 1024  # bytes of a pickle, to say what is in it
GGUF, ONNX, ARCHIVE = "gguf", "onnx", "archive"
_MAGIC = (
    (b"GGUF", "a GGUF model"),
    (b"\x7fELF", "an ELF program"),
    (b"MZ", "a Windows program"),
    (b"#!", "a script"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"BZh", "a bzip2 archive"),
    (b"\xfd7zXZ", "an xz archive"),
    (b"7z\xbc\xaf", "a 7z archive"),
    (b"Rar!", "a RAR archive"),
    (b"\x93NUMPY", "a NumPy array"),
    (b"\x89HDF", "an HDF5 file (Keras?)"),
    (b"\x89PNG", "a PNG image"),
    (b"\xff\xd8\xff", "a JPEG image"),
    (b"%PDF", "a PDF document"),
    (b"{", "a JSON text"),
)


def framework(path: Path) -> str:
    """What a file is that has other ways into service than an ONNX model has; empty for any other. An archive may hold
    a model of several frameworks, or none."""
    status = path.lstat()
    if not stat.S_ISREG(status.st_mode) or status.st_nlink > 1:
        return ""
    with path.open("rb") as file:
        head = file.read(512)
    if head[:4] == b"GGUF":
        return GGUF
    return ARCHIVE if is_archive(head) else ""


def foreign(path: Path) -> str:
    """What a file is when it cannot be an ONNX model, in words; empty when it may be one. Links count as foreign."""
    status = path.lstat()
    if not stat.S_ISREG(status.st_mode) or status.st_nlink > 1:
        return "a link or special file"
    with path.open("rb") as file:
        head = file.read(512)
    if not head:
        return "an empty file"
    if head[:1] == b"\x80" and head[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05"):
        return f"a Python pickle{told(_beginning(path))}"
    if head[4:8] == b"TFL3":
        return "a TensorFlow Lite model"
    if head[8:10] == b'{"' and 0 < int.from_bytes(head[:8], "little") < path.stat().st_size:
        return "a safetensors file, which holds weights and no graph"
    if head[:2] == b"PK":
        return _archive(path)
    if head[257:262] == b"ustar":
        return "a tar archive"
    for magic, name in _MAGIC:
        if head.startswith(magic):
            return name
    return ""


def _beginning(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(_LOOKED_AT)


def _archive(path: Path) -> str:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()[:10_000]
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
        return "a broken zip archive"
    if any(n.endswith("data.pkl") for n in names):
        return "a PyTorch archive (it holds a pickle)"
    if any(n.endswith((".npy",)) for n in names):
        return "a NumPy archive"
    return "a zip archive"
