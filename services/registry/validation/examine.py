"""Looks at a file as what its content says it is. Runs in the child only."""

from dataclasses import replace
from pathlib import Path

from services.registry.validation import engine, onnx_model
from services.registry.validation.formats import ARCHIVE, GGUF, ONNX, framework
from services.registry.validation.frameworks import torch_archive
from services.registry.validation.frameworks.archives import Form, form_of
from services.registry.validation.frameworks.compare import compare
from services.registry.validation.report import Limits, Refused, Report


def examine(path: Path, made: Path, limits: Limits, cases: Path | None = None) -> Report:
    """A report of one file. Where that cannot be served as it is, what can be is written to `made`; where it has to be
    converted for it, the report says so. A converter's work is compared with its source on `cases`. Raises MemoryError
    when the limits do not suffice to look."""
    kind = framework(path)
    try:
        if kind == ARCHIVE and (form := form_of(path)):
            if form is not Form.SAVED_MODEL:
                torch_archive.check(path, form)
            return Report(framework=form.framework, form=form)
        if kind == GGUF:
            from services.registry.validation import gguf_model  # slow to import, and needed for nothing else

            report = gguf_model.examine(path, made, limits)
        else:
            report = onnx_model.examine(path, limits)
            kind = ONNX
            if cases is not None and not report.findings:
                report = replace(report, difference=compare(engine.load(path)[0], cases))
    except Refused as e:
        report = Report(findings=(e.finding,))
        kind = kind or ("" if e.finding.code == "NOT_ONNX" else ONNX)
    return replace(report, framework="" if kind == ARCHIVE else kind)
