"""What a publisher says of a model that does not say it itself: inputs and outputs; and folders as one file."""

import re
import zipfile
from pathlib import Path
from typing import Annotated

import typer
from mercat.common.v1 import tensor_pb2

_DATATYPES = ("BOOL", "INT8", "INT16", "INT32", "INT64", "UINT8", "UINT16", "UINT32", "UINT64", "FP16", "FP32", "FP64",
              "BYTES")  # fmt: skip
_SPEC = re.compile(r"([^=]+)=([A-Za-z0-9]+)\[([-0-9, ]*)\](:image)?")
_MADE = (1980, 1, 1, 0, 0, 0)  # the first time that a zip archive can hold

Input = Annotated[
    list[str] | None,
    typer.Option("--input", metavar="NAME=TYPE[SHAPE]", help="What it takes, such as x=FP32[-1,4]; -1: any length. "
                 "Needed for TorchScript; with :image behind it each row is an image. Repeatable."),
]  # fmt: skip
Output = Annotated[
    list[str] | None, typer.Option("--output", metavar="NAME=TYPE[SHAPE]", help="What it gives. Repeatable.")
]


def signature(inputs: list[str], outputs: list[str]) -> tensor_pb2.Signature:
    """Raises BadParameter."""
    return tensor_pb2.Signature(
        inputs=[_spec(text, "--input") for text in inputs], outputs=[_spec(text, "--output") for text in outputs]
    )


def _spec(text: str, option: str) -> tensor_pb2.TensorSpec:
    found = _SPEC.fullmatch(text.strip())
    if found is None or found[2].upper() not in _DATATYPES:
        hint = f"write it as name=FP32[-1,4], of {', '.join(_DATATYPES)}"
        raise typer.BadParameter(f"{text!r} is no declaration; {hint}", param_hint=option)
    try:
        shape = [int(length) for length in found[3].split(",")] if found[3].strip() else []
    except ValueError:
        shape = [-2]
    if min(shape, default=0) < -1:
        raise typer.BadParameter(f"{text!r} has a length that is no number from -1 on", param_hint=option)
    return tensor_pb2.TensorSpec(name=found[1], datatype=found[2].upper(), shape=shape, image=bool(found[4]))


def is_torchscript(file: Path) -> bool:
    """Whether it is what does not say its inputs. What is hostile is none: validation says what it is."""
    from services.registry.validation.frameworks.archives import Form, form_of  # slow to import
    from services.registry.validation.report import Refused

    try:
        with file.open("rb") as source:
            return source.read(2) == b"PK" and form_of(file) is Form.TORCHSCRIPT
    except (Refused, OSError):
        return False


def packed(folder: Path, into: Path) -> Path:
    """A SavedModel's folder as one zip archive, the same bytes for the same files. Raises BadParameter when it is no
    SavedModel."""
    if not (folder / "saved_model.pb").is_file():
        raise typer.BadParameter(f"{folder} holds no saved_model.pb; a folder is pushed where it is a SavedModel")
    path = into / "saved_model.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(p for p in folder.rglob("*") if p.is_file()):
            info = zipfile.ZipInfo(file.relative_to(folder).as_posix(), _MADE)
            info.external_attr = 0o644 << 16
            with file.open("rb") as source, archive.open(info, "w", force_zip64=True) as target:
                while data := source.read(1 << 20):
                    target.write(data)
    return path
