"""Declared inputs, and folders as one file."""

import hashlib
import os
from pathlib import Path

import pytest
import typer

from services.cli.declaring import packed, signature
from services.registry.validation.frameworks.archives import Form, form_of


def test_declarations_are_read() -> None:
    made = signature(["x=FP32[-1, 4]", "name with spaces=int64[]"], ["y=BOOL[-1]"])
    assert [(s.name, s.datatype, list(s.shape)) for s in made.inputs] == [
        ("x", "FP32", [-1, 4]), ("name with spaces", "INT64", []),
    ]  # fmt: skip
    assert [(s.name, s.datatype, list(s.shape)) for s in made.outputs] == [("y", "BOOL", [-1])]


@pytest.mark.parametrize("text", ["x", "x=FP32", "x=FP31[1]", "=FP32[1]", "x=FP32[-2]", "x=FP32[1,,2]", "x=FP32[1-2]"])
def test_what_is_no_declaration_is_refused(text: str) -> None:
    with pytest.raises(typer.BadParameter):
        signature([text], [])


def test_the_same_files_are_the_same_bytes(tmp_path: Path) -> None:
    digests = []
    for name in ("one", "two"):
        folder = tmp_path / name
        for file, data in (("variables/variables.index", b"i"), ("saved_model.pb", b"g"), ("assets/words", b"w")):
            (folder / file).parent.mkdir(parents=True, exist_ok=True)
            (folder / file).write_bytes(data)
            os.utime(folder / file, (len(digests) * 1e9, len(digests) * 1e9))
        into = tmp_path / f"into-{name}"
        into.mkdir()
        path = packed(folder, into)
        assert form_of(path) is Form.SAVED_MODEL
        digests.append(hashlib.sha256(path.read_bytes()).hexdigest())
    assert digests[0] == digests[1]


def test_other_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(typer.BadParameter, match="SavedModel"):
        packed(tmp_path, tmp_path)
