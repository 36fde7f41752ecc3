"""Archives of models: which framework's one is, and how one is unpacked."""

import errno
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path, PurePosixPath
from typing import IO, cast

from services.registry.validation.frameworks.pickles import told
from services.registry.validation.report import Refused

_MOST_ENTRIES = 20_000
_MOST_BYTES = 4 * 1024**3  # of all that is unpacked
_LONGEST, _DEEPEST = 250, 16  # characters, folders
_BLOCK = 1 << 20
_LOOKED_AT = 4 * 1024 * 1024  # bytes of a pickle, to say what is in it
# What stands before a file in a zip archive (APPNOTE.TXT 4.3.7), and what its flags and sizes mean.
_HEAD = struct.Struct("<4sHHHHHIIIHH")
_UTF8, _SIZES_BEHIND, _IN_EXTRA = 0x800, 0x8, 0xFFFFFFFF
_UNICODE_NAME = 0x7075  # an extra field (4.6.9) with another name, which some readers take
_DESCRIPTOR = 24  # bytes at most behind a file whose sizes are there (4.3.9)
_END = 22  # bytes of the end of the directory (4.3.16), behind which there is its comment
# Of a SavedModel this is what TensorFlow reads; whatever else lies beside it is left where it is.
_FILES, _FOLDERS = ("saved_model.pb", "fingerprint.pb"), ("variables", "assets")


class Form(StrEnum):
    """How a framework wrote a model down."""

    TORCHSCRIPT = "torchscript"
    TORCH_EXPORT = "torch-export"
    SAVED_MODEL = "saved-model"

    @property
    def framework(self) -> str:
        return "tensorflow" if self is Form.SAVED_MODEL else "pytorch"


@dataclass(frozen=True)
class Entry:
    """A file of an archive, of so many bytes if the archive says the truth."""

    name: str
    size: int
    inner: zipfile.ZipInfo | tarfile.TarInfo


def is_archive(head: bytes) -> bool:
    """Whether a file that begins so (512 bytes or all of it) is a zip, tar or gzip archive."""
    return head[:2] == b"PK" or head[:2] == b"\x1f\x8b" or head[257:262] == b"ustar"


def form_of(path: Path) -> Form | None:
    """What an archive holds by the names of its files; None: no model known here. Raises Refused for a broken or
    hostile archive, and for forms that cannot be opened without running what they say."""
    names = [entry.name for entry in _entries(path)]
    roots = {name.partition("/")[0] for name in names}
    inside = {name.partition("/")[2] for name in names} if len(roots) == 1 else set(names)
    if "saved_model.pb" in inside or "saved_model.pb" in names:
        return Form.SAVED_MODEL
    if not _is_zip(path):
        return None
    if "archive_format" in inside and any(name.startswith("models/") for name in inside):
        return Form.TORCH_EXPORT
    if "serialized_exported_program.json" in inside:
        text = "a torch.export program of an old form, which is read by unpickling; export it with PyTorch 2.9 or newer"
        raise Refused("EXPORT_TOO_OLD", text)
    if "constants.pkl" in inside and any(name.startswith("code/") for name in inside):
        return Form.TORCHSCRIPT
    if pickled := [name for name in names if PurePosixPath(name).name == "data.pkl"]:
        with opened(path) as archive, archive.open(pickled[0]) as data:
            what = told(data.read(_LOOKED_AT))
        text = f"a PyTorch checkpoint: a Python pickle{what}. Opening it runs whatever it says; push the model itself,"
        raise Refused("PICKLED_CHECKPOINT", f"{text} saved with torch.export.save or torch.jit.save", pickled[0])
    if "config.json" in inside and any(name.endswith(".h5") for name in inside):
        raise Refused("KERAS_FILE", "a Keras file; write a SavedModel with `model.export(folder)` and push that folder")
    return None


@contextmanager
def opened(path: Path) -> Iterator[zipfile.ZipFile]:
    """A zip archive. Raises Refused when it is broken."""
    try:
        with zipfile.ZipFile(path) as archive:
            yield archive
    except (
        zipfile.BadZipFile,
        EOFError,
        IndexError,
        NotImplementedError,
        OSError,
        RuntimeError,
        ValueError,
        zlib.error,
    ) as e:  # fmt: skip - IndexError: a file without a name
        raise _broken("zip", e) from e


def entries(archive: zipfile.ZipFile) -> list[Entry]:
    """The files of a zip archive, each in its place. Raises Refused."""
    found: list[Entry] = []
    for info in archive.infolist():
        kind = stat.S_IFMT(info.external_attr >> 16)
        if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
            raise Refused("ARCHIVE_LINK", "archives hold files and folders only", info.filename)
        if info.flag_bits & 0x1:
            raise Refused("ARCHIVE_BROKEN", "it is encrypted", info.filename)
        if not info.is_dir():
            found.append(Entry(info.orig_filename, info.file_size, info))
    checked = _checked(found)
    _same_everywhere(archive)
    return checked


def _same_everywhere(archive: zipfile.ZipFile) -> None:
    """Whoever reads a zip archive by its directory, and whoever reads it by what stands before each file, finds the
    same files, none of which lies in another. Raises Refused."""
    file = archive.fp
    assert file is not None
    until = behind = 0
    for info in sorted(archive.infolist(), key=lambda info: info.header_offset):
        if info.header_offset < until or info.header_offset > until + behind:
            raise Refused("ARCHIVE_TAMPERED", "files lie over each other, or something lies before one", info.filename)
        file.seek(info.header_offset)
        head = file.read(_HEAD.size)
        if len(head) < _HEAD.size or head[:4] != b"PK\3\4":
            raise Refused("ARCHIVE_TAMPERED", "a file is not where the directory says", info.filename)
        _, _, flags, method, _, _, crc, packed, size, name, extra = _HEAD.unpack(head)
        known = info.orig_filename.encode("utf-8" if info.flag_bits & _UTF8 else "cp437")
        there = file.read(name) == known and (flags, method) == (info.flag_bits, info.compress_type)
        if there and not flags & _SIZES_BEHIND:
            there = (
                crc == info.CRC and packed in (info.compress_size, _IN_EXTRA) and size in (info.file_size, _IN_EXTRA)
            )
        if not there:
            raise Refused("ARCHIVE_TAMPERED", "what stands before a file is not what the directory says", info.filename)
        if any(kind == _UNICODE_NAME and data[5:] != known for kind, data in _extra(info.extra + file.read(extra))):
            raise Refused("ARCHIVE_TAMPERED", "a file has two names", info.filename)
        until = info.header_offset + _HEAD.size + name + extra + info.compress_size
        behind = _DESCRIPTOR if flags & _SIZES_BEHIND else 0
    if not until <= archive.start_dir <= until + behind:
        raise Refused("ARCHIVE_TAMPERED", "files lie over the directory, or something lies before it")
    file.seek(0, 2)
    file.seek(max(0, file.tell() - _END - len(archive.comment)))
    if file.read(4) != b"PK\5\6":
        raise Refused("ARCHIVE_TAMPERED", "something lies behind the archive")


def _extra(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Extra fields of a file, by number; what is cut off, as PyTorch's padding may be, ends them."""
    while len(data) >= 4:
        kind, length = struct.unpack_from("<HH", data)
        yield kind, data[4 : 4 + length]
        data = data[4 + length :]


def unpack(path: Path, folder: Path) -> None:
    """Writes a SavedModel's files into `folder`, which is made. Raises Refused; what was written until then stays."""
    if _is_zip(path):
        with opened(path) as archive:
            every = entries(archive)
            top = _top(entry.name for entry in every)
            left = _MOST_BYTES
            for entry in every:
                with archive.open(cast("zipfile.ZipInfo", entry.inner)) as source:
                    left -= _write(source, folder, entry.name.removeprefix(top), left)
        return
    with _tar(path) as tar:
        top = _top(entry.name for entry in _of_tar(tar))
    with _tar(path) as tar:
        left = _MOST_BYTES
        for entry in _of_tar(tar):
            member = tar.extractfile(cast("tarfile.TarInfo", entry.inner))
            assert member is not None
            left -= _write(member, folder, entry.name.removeprefix(top), left)


def _is_zip(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(2) == b"PK"


def _entries(path: Path) -> list[Entry]:
    if _is_zip(path):
        with opened(path) as archive:
            return entries(archive)
    with _tar(path) as tar:
        return _checked(_of_tar(tar))


@contextmanager
def _tar(path: Path) -> Iterator[tarfile.TarFile]:
    """Read from its start to its end and never sought in: a compressed one would be unpacked anew each time."""
    try:
        with tarfile.open(path, "r|*", format=tarfile.PAX_FORMAT) as tar:
            yield tar
    except (
        tarfile.TarError,
        EOFError,
        OSError,
        TypeError,
        ValueError,
        zlib.error,
    ) as e:  # TypeError: a cut off gzip head
        raise _broken("tar", e) from e


def _of_tar(tar: tarfile.TarFile) -> Iterator[Entry]:
    total = 0
    for info in tar:
        tar.members = []  # type: ignore[attr-defined]  # or all of them would be kept
        if info.isdir():
            continue
        if not info.isreg() or info.issparse():
            raise Refused("ARCHIVE_LINK", "archives hold files and folders only", info.name)
        total += info.size
        if total > _MOST_BYTES:  # before the rest is skipped over, which means unpacking it
            raise _too_large()
        yield Entry(info.name.removeprefix("./"), info.size, info)


def _checked(found: Iterable[Entry]) -> list[Entry]:
    """Entries whose names name places in the folder they are unpacked to, each another one."""
    kept: list[Entry] = []
    names: set[str] = set()
    total = 0
    for entry in found:
        _place(entry.name)
        if entry.name in names:
            raise Refused("ARCHIVE_NAME", "it holds two files of this name", entry.name)
        names.add(entry.name)
        kept.append(entry)
        total += entry.size
        if len(kept) > _MOST_ENTRIES:
            raise Refused("ARCHIVE_TOO_LARGE", f"more than {_MOST_ENTRIES:,} files")
        if total > _MOST_BYTES:
            raise _too_large()
    return kept


def _place(name: str) -> None:
    parts = name.split("/")
    if not name or len(name) > _LONGEST or len(parts) > _DEEPEST or not name.isprintable():
        raise Refused("ARCHIVE_NAME", f"a name is empty, unprintable, longer than {_LONGEST} or too deep", name)
    if "\\" in name or ":" in name or any(part in ("", ".", "..") for part in parts):
        raise Refused("ARCHIVE_NAME", "a name leads out of the archive", name)


def _top(names: Iterable[str]) -> str:
    """The folder in which the SavedModel lies, with its slash; empty where it lies at the top."""
    found = [name for name in names if PurePosixPath(name).name == "saved_model.pb"]
    least = min(found, key=lambda name: name.count("/"), default="saved_model.pb")
    return least.removesuffix("saved_model.pb")


def _write(source: IO[bytes], folder: Path, name: str, most: int) -> int:
    """Writes one file, unless no SavedModel has it; answers its bytes. What an archive says of its size is not
    believed."""
    _place(name)
    if name not in _FILES and name.partition("/")[0] not in _FOLDERS:
        return 0
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    written = 0
    with path.open("xb") as file:
        while block := source.read(_BLOCK):
            written += len(block)
            if written > most:
                raise _too_large()
            file.write(block)
    return written


def _too_large() -> Refused:
    return Refused("ARCHIVE_TOO_LARGE", f"unpacked it has more than {_MOST_BYTES >> 30} GiB")


def _broken(kind: str, error: Exception) -> Refused:
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        raise error  # the disk's fault
    return Refused("ARCHIVE_BROKEN", f"the {kind} archive is broken or cut off")
