"""`model.yaml`: the options of `mercat push`, written down. Keys are the options without their dashes, and
`artifact`; paths are beside the file."""

from pathlib import Path
from typing import Any

import typer

from services.cli.command import COMMON
from services.common.plain_yaml import BadYaml, load

_ENDINGS = (".yaml", ".yml")
_PATHS = {"card", "version-card", "data", "tokenizer", "chat-template", "attest", "attestation"}
_NAMED_PATHS = {"sample", "labels"}  # NAME=FILE


def given(context: typer.Context, file: Path) -> Path:
    """The model that a command is about. Where the file is a model.yaml, that is its `artifact`, and what it says holds
    for options that are not on the command line. Raises BadParameter."""
    if file.suffix not in _ENDINGS:
        return file
    try:
        said = load(file.read_text())
    except (BadYaml, UnicodeDecodeError, OSError) as e:
        raise typer.BadParameter(f"{file}: {e}") from None
    artifact = said.pop("artifact", "")
    if not isinstance(artifact, str) or not artifact:
        raise typer.BadParameter(f"{file} does not say which file is the model; write it as artifact: model.onnx")
    parameters = {
        option.removeprefix("--"): parameter
        for parameter in context.command.params
        if parameter.name not in COMMON
        for option in parameter.opts
        if option.startswith("--")
    }
    if unknown := sorted(set(said) - set(parameters)):
        raise typer.BadParameter(f"{file}: {unknown[0]!r} is no option of `mercat push`")
    context.default_map = {
        str(parameters[key].name): _value(file, key, value, several=parameters[key].multiple)
        for key, value in said.items()
        if value not in ("", [])
    }
    path = file.parent / artifact
    if not path.exists():
        raise typer.BadParameter(f"{file} names {artifact}, which is not there")
    return path


def _value(file: Path, key: str, value: Any, *, several: bool) -> Any:
    values = value if isinstance(value, list) else [value]
    if not all(isinstance(v, str) for v in values) or (isinstance(value, list) and not several):
        raise typer.BadParameter(f"{file}: {key} must be a text{' or a list of texts' if several else ''}")
    values = [_beside(file, key, v) for v in values]
    return values if several else values[0]


def _beside(file: Path, key: str, value: str) -> str:
    if key in _PATHS:
        return str(file.parent / value)
    if key in _NAMED_PATHS:
        name, separator, path = value.partition("=")
        return f"{name}={file.parent / path}" if separator else value
    return value
