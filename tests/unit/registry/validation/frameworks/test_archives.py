"""What archives are, and that hostile ones are refused before anything of them lies where it should not."""

import io
import stat
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from services.registry.validation.frameworks import archives
from services.registry.validation.frameworks.archives import Form, form_of, unpack
from services.registry.validation.report import Refused


def zipped(files: dict[str, bytes], compression: int = zipfile.ZIP_DEFLATED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for name, data in files.items():
            archive.writestr(zipfile.ZipInfo(name), data, compression)
    return buffer.getvalue()


class _Stream(io.RawIOBase):
    """Cannot be sought in, so that a zip archive has the sizes of its files behind them."""

    def __init__(self) -> None:
        self.data = b""

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self.data += bytes(data)
        return len(data)


def streamed(files: dict[str, bytes], comment: bytes = b"") -> bytes:
    made = _Stream()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
        archive.comment = comment
    return made.data


def zipped_link(name: str, target: str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("saved_model.pb", b"x")
        link = zipfile.ZipInfo(name)
        link.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(link, target)
    return buffer.getvalue()


def tarred(files: dict[str, bytes], *more: tarfile.TarInfo, mode: str = "w:gz") -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as archive:  # type: ignore[call-overload]
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
        for info in more:
            archive.addfile(info)
    return buffer.getvalue()


def special(name: str, kind: bytes, target: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


def opened(path: Path, folder: Path) -> None:
    if form_of(path) is Form.SAVED_MODEL:
        unpack(path, folder)


SAVED = {
    "saved_model.pb": b"graph", "variables/variables.index": b"index",
    "variables/variables.data-00000-of-00001": b"data", "assets/words.txt": b"words", "fingerprint.pb": b"f",
}  # fmt: skip
SCRIPT = {f"m/{n}": b"" for n in ("data.pkl", "constants.pkl", "code/__torch__.py", "version")}
EXPORT = {f"m/{n}": b"{}" for n in ("archive_format", "models/model.json", "data/sample_inputs/model.pt")}
FORMS: dict[str, tuple[Form | None, bytes]] = {
    "TorchScript": (Form.TORCHSCRIPT, zipped(SCRIPT)),
    "torch.export": (Form.TORCH_EXPORT, zipped(EXPORT)),
    "TorchScript, written to a stream": (Form.TORCHSCRIPT, streamed(SCRIPT)),
    "SavedModel, written to a stream, with a comment": (Form.SAVED_MODEL, streamed(SAVED, b"made by hand")),
    "SavedModel, zip": (Form.SAVED_MODEL, zipped(SAVED)),
    "SavedModel in a folder, zip": (Form.SAVED_MODEL, zipped({f"model/{n}": d for n, d in SAVED.items()})),
    "SavedModel, tar.gz": (Form.SAVED_MODEL, tarred(SAVED)),
    "SavedModel in a folder, tar.gz": (Form.SAVED_MODEL, tarred({f"./model/{n}": d for n, d in SAVED.items()})),
    "SavedModel, tar": (Form.SAVED_MODEL, tarred(SAVED, mode="w")),
    "arrays": (None, zipped({"x.npy": b""})),
    "texts": (None, tarred({"readme": b""})),
}
HOSTILE: dict[str, tuple[str, Callable[[], bytes]]] = {
    "upwards": ("ARCHIVE_NAME", lambda: zipped({"saved_model.pb": b"", "variables/../../up": b"x"})),
    "absolute": ("ARCHIVE_NAME", lambda: zipped({"saved_model.pb": b"", "/tmp/up": b"x"})),
    "backslashes": ("ARCHIVE_NAME", lambda: zipped({"saved_model.pb": b"", "variables\\..\\up": b"x"})),
    "drive": ("ARCHIVE_NAME", lambda: zipped({"saved_model.pb": b"", "c:/up": b"x"})),
    "NUL": ("ARCHIVE_NAME", lambda: zipped({"saved_model.pb": b"", "variables/a@b": b"x"}).replace(b"a@b", b"a\0b")),
    "control characters": ("ARCHIVE_NAME", lambda: zipped({"saved_model.pb": b"", "a\x1b[2J": b"x"})),
    "a long name": ("ARCHIVE_NAME", lambda: zipped({"saved_model.pb": b"", "a" * 400: b"x"})),
    "deep": ("ARCHIVE_NAME", lambda: zipped({"saved_model.pb": b"", "a/" * 40 + "a": b"x"})),
    "upwards, tar": ("ARCHIVE_NAME", lambda: tarred({"saved_model.pb": b"", "../up": b"x"})),
    "absolute, tar": ("ARCHIVE_NAME", lambda: tarred({"saved_model.pb": b"", "/tmp/up": b"x"})),
    "a link": ("ARCHIVE_LINK", lambda: zipped_link("variables/link", "/etc/passwd")),
    "a link, tar": ("ARCHIVE_LINK", lambda: tarred(SAVED, special("variables/l", tarfile.SYMTYPE, "/etc/passwd"))),
    "a hard link, tar": ("ARCHIVE_LINK", lambda: tarred(SAVED, special("assets/l", tarfile.LNKTYPE, "/etc/passwd"))),
    "a device, tar": ("ARCHIVE_LINK", lambda: tarred(SAVED, special("variables/d", tarfile.CHRTYPE))),
    "a pipe, tar": ("ARCHIVE_LINK", lambda: tarred(SAVED, special("variables/p", tarfile.FIFOTYPE))),
    "twice the same name, tar": (
        "ARCHIVE_NAME", lambda: tarred(SAVED, special("saved_model.pb", tarfile.REGTYPE))),
    "cut off": ("ARCHIVE_BROKEN", lambda: zipped(SAVED)[:-30]),
    "cut off, tar": ("ARCHIVE_BROKEN", lambda: tarred(SAVED, mode="w")[:515]),
    "the head of a gzip archive, cut off": ("ARCHIVE_BROKEN", lambda: b"\x1f\x8b\x08"),
    "a longer one": ("ARCHIVE_BROKEN", lambda: b"\x1f\x8b\x08\x25\0\0"),
    "a file without a name": ("ARCHIVE_BROKEN", lambda: zipped({"": b"x"})),
    "encrypted": ("ARCHIVE_BROKEN", lambda: _flagged(zipped(SAVED))),
    "a checkpoint": ("PICKLED_CHECKPOINT", lambda: zipped({"m/data.pkl": b".", "m/data/0": b""})),
    "an export of an old form": (
        "EXPORT_TOO_OLD", lambda: zipped({"serialized_exported_program.json": b"{}", "version": b""})),
    "Keras": ("KERAS_FILE", lambda: zipped({"config.json": b"{}", "model.weights.h5": b""})),
}  # fmt: skip


def _flagged(data: bytes) -> bytes:
    """Every entry of the directory said to be encrypted."""
    parts = data.split(b"PK\x01\x02")
    return parts[0] + b"".join(b"PK\x01\x02" + p[:4] + b"\x01" + p[5:] for p in parts[1:])


@pytest.mark.parametrize("name", FORMS)
def test_form_is_seen_by_content(name: str, tmp_path: Path) -> None:
    form, data = FORMS[name]
    path = tmp_path / "model"
    path.write_bytes(data)
    assert archives.is_archive(data[:512])
    assert form_of(path) is form


@pytest.mark.parametrize("name", [name for name, (form, _) in FORMS.items() if form is Form.SAVED_MODEL])
def test_saved_models_are_unpacked(name: str, tmp_path: Path) -> None:
    path = tmp_path / "model"
    path.write_bytes(FORMS[name][1])
    unpack(path, tmp_path / "there")
    files = {str(p.relative_to(tmp_path / "there")): p for p in (tmp_path / "there").rglob("*") if p.is_file()}
    assert {name: p.read_bytes() for name, p in files.items()} == SAVED


def test_what_is_no_part_of_a_saved_model_is_left(tmp_path: Path) -> None:
    path = tmp_path / "model"
    path.write_bytes(zipped(SAVED | {"__MACOSX/x": b"", "assets.extra/lib.so": b"\x7fELF", "run.py": b""}))
    unpack(path, tmp_path / "there")
    assert {p.name for p in (tmp_path / "there").iterdir()} == {
        "saved_model.pb",
        "fingerprint.pb",
        "variables",
        "assets",
    }


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_archives_are_refused(name: str, tmp_path: Path) -> None:
    code, make = HOSTILE[name]
    path = tmp_path / "inside" / "model"
    path.parent.mkdir()
    path.write_bytes(make())
    with pytest.raises(Refused) as refused:
        opened(path, tmp_path / "inside" / "there")
    assert refused.value.finding.code == code
    assert {p.name for p in tmp_path.iterdir()} == {"inside"}
    assert not any(p.is_symlink() for p in tmp_path.rglob("*"))


def test_bombs_are_refused_by_what_comes_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "_MOST_BYTES", 1 << 20)
    large = SAVED | {"variables/variables.data-00000-of-00001": bytes(4 << 20)}
    lying = zipped(large).replace((4 << 20).to_bytes(4, "little"), (4).to_bytes(4, "little"))
    for data in (zipped(large), tarred(large), lying):
        path = tmp_path / "bomb"
        path.write_bytes(data)
        assert len(data) < 16_384
        with pytest.raises(Refused) as refused:
            opened(path, tmp_path / f"there{len(data)}")
        assert refused.value.finding.code in ("ARCHIVE_TOO_LARGE", "ARCHIVE_BROKEN")
    assert all(p.stat().st_size <= 1 << 20 for p in tmp_path.rglob("*"))


def test_too_many_files_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "_MOST_ENTRIES", 100)
    many = SAVED | {f"assets/{i}": b"" for i in range(100)}
    for data in (zipped(many), tarred(many)):
        path = tmp_path / "many"
        path.write_bytes(data)
        with pytest.raises(Refused) as refused:
            opened(path, tmp_path / "there")
        assert refused.value.finding.code == "ARCHIVE_TOO_LARGE"
        assert not (tmp_path / "there").exists()
