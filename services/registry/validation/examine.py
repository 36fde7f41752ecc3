"""Looks at a file as what its content says it is. Runs in the child only."""

from dataclasses import replace
from pathlib import Path

from services.registry.validation import onnx_model
from services.registry.validation.formats import GGUF, ONNX, framework
from services.registry.validation.report import Limits, Refused, Report


def examine(path: Path, made: Path, limits: Limits) -> Report:
    """A report of one file. Where that cannot be served as it is, what can be is written to `made`. Raises MemoryError
    when the limits do not suffice to look."""
    kind = framework(path)
    try:
        if kind == GGUF:
            from services.registry.validation import gguf_model  # slow to import, and needed for nothing else

            report = gguf_model.examine(path, made, limits)
        else:
            report = onnx_model.examine(path, limits)
            kind = ONNX
    except Refused as e:
        report = Report(findings=(e.finding,))
        kind = kind or ("" if e.finding.code == "NOT_ONNX" else ONNX)
    return replace(report, framework=kind)
