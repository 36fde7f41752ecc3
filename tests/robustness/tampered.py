"""Archives that tell one reader this and another one that, or that hold more than anybody would unpack; and those in
which pickles come."""

import gzip
import io
import struct
import tarfile
import zipfile
import zlib
from pathlib import Path

from tests.robustness.artifacts import archive, pickled


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


def commented(witness: Path) -> bytes:
    """An archive whose comment is the directory of another one, which holds a checkpoint."""
    inner = checkpoint(witness)
    outer = bytearray(archive({"readme": b"harmless"}))
    at = len(outer)
    struct.pack_into("<H", outer, at - 2, len(inner))
    moved = bytearray(inner)
    directory = moved.index(b"PK\1\2")
    for n, local in enumerate(_places(inner, b"PK\3\4")):
        struct.pack_into("<I", moved, _places(inner, b"PK\1\2")[n] + 42, at + local)
    struct.pack_into("<I", moved, len(moved) - 6, at + directory)
    return bytes(outer + moved)


def unlisted(witness: Path) -> bytes:
    """A file between two others, which stands in no directory: only who reads from front to back finds it."""
    first, hidden = archive({"m/version": b"3\n"}), checkpoint(witness)
    hidden = hidden[: hidden.index(b"PK\1\2")]
    directory = first.index(b"PK\1\2")
    made = bytearray(first[:directory] + hidden + first[directory:])
    struct.pack_into("<I", made, len(made) - 6, directory + len(hidden))
    return bytes(made)


def two_names(witness: Path) -> bytes:
    """Another name of a file as an extra field, which some readers take for its name."""
    info = zipfile.ZipInfo("m/readme")
    other = b"m/data.pkl"
    info.extra = struct.pack("<HHBI", 0x7075, 5 + len(other), 1, zlib.crc32(b"m/readme")) + other
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as made:
        made.writestr(info, pickled(witness, 2))
    return buffer.getvalue()


def _places(data: bytes, magic: bytes) -> list[int]:
    found, at = [], data.find(magic)
    while at >= 0:
        found.append(at)
        at = data.find(magic, at + 1)
    return found


def twice(witness: Path) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as made:
        for name in ("m/data.pkX", "m/data.pkl"):
            made.writestr(name, pickled(witness, 2))
    return buffer.getvalue().replace(b"pkX", b"pkl")


def huge_tar() -> bytes:
    info = tarfile.TarInfo("saved_model.pb")
    info.size = 2**63 - 1
    return gzip.compress(info.tobuf(tarfile.GNU_FORMAT) + bytes(4096))
