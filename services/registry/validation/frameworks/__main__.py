"""The converter: `python -m services.registry.validation.frameworks SOURCE FOLDER TASK LIMITS`, in a sandbox whose one
writable folder is FOLDER. Writes `model.onnx` and `cases.npz` there and one report, as JSON, to standard output."""

import errno
import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path

# All that is ours is imported before the sandbox closes: afterwards these files are out of reach.
from services.registry.validation.confine import confine
from services.registry.validation.conversion import CASES, MODEL
from services.registry.validation.frameworks import archives, cases, saved_model, torch_archive, torch_source
from services.registry.validation.frameworks.archives import Form
from services.registry.validation.report import Limits, Refused, Report, Tensor
from services.registry.validation.sandbox import NoSandbox, enter

_PACKAGES = {"pytorch": ("torch", "onnx", "onnxscript"), "tensorflow": ("tensorflow", "tf2onnx")}
_NO_MEMORY = ("allocate memory", "bad_alloc", "ResourceExhausted", "OOM when")


@dataclass(frozen=True)
class Task:
    """What a converter is told: the form of the source, what its publisher declares of it, requests that show it."""

    form: Form
    inputs: tuple[Tensor, ...] = ()
    outputs: tuple[str, ...] = ()
    samples: tuple[str, ...] = ()

    @classmethod
    def from_json(cls, text: str) -> "Task":
        data = json.loads(text)
        inputs = tuple(Tensor(t["name"], t["datatype"], tuple(t["shape"]), tuple(t["axes"])) for t in data["inputs"])
        return cls(Form(data["form"]), inputs, tuple(data["outputs"]), tuple(data["samples"]))


def convert(source: Path, folder: Path, task: Task) -> Report:
    """Raises MemoryError."""
    framework = task.form.framework
    try:
        _require(framework)
        try:
            model = _open(source, folder, task)
            found = cases.cases(model, task.samples)
            model.export(found, folder / MODEL)
            cases.save(found, model.outputs, folder / CASES)
        except (Refused, MemoryError):
            raise
        except Exception as e:
            if isinstance(e, OSError) and e.errno in (errno.ENOSPC, errno.EDQUOT):
                raise
            if any(text in str(e) for text in _NO_MEMORY):
                raise MemoryError from e
            print(f"{type(e).__name__}: {e}", file=sys.stderr)  # noqa: T201
            text = f"{framework} could not turn it into ONNX: {cases.first_line(e)}"
            raise Refused("CONVERSION_FAILED", text.replace(str(folder), "")) from e
    except Refused as e:
        return Report(findings=(e.finding,), framework=framework)
    return Report(framework=framework, made=True)


def _require(framework: str) -> None:
    for package in _PACKAGES[framework]:
        try:
            __import__(package)
        except ImportError as e:
            print(f"{package}: {e}", file=sys.stderr)  # noqa: T201
            text = (
                f"this platform lacks {package}, with which {framework} models are converted; its operator installs "
                f"mercat[{framework}], or names an environment that has it in MERCAT_CONVERTERS"
            )
            raise Refused("CONVERTER_MISSING", text) from e


def _open(source: Path, folder: Path, task: Task) -> cases.Source:
    if task.form is Form.SAVED_MODEL:
        unpacked = folder / "saved_model"
        archives.unpack(source, unpacked)
        saved_model.check(unpacked)
        return saved_model.SavedModelSource(unpacked)
    torch_archive.check(source, task.form)
    if task.form is Form.TORCHSCRIPT:
        return torch_source.ScriptSource(source, task.inputs, task.outputs)
    return torch_source.ProgramSource(source, task.outputs)


def main() -> None:
    source, folder, task = Path(sys.argv[1]), Path(sys.argv[2]), Task.from_json(sys.argv[3])
    # Whatever else asks for a Python pickle is refused by PyTorch itself.
    os.environ |= {"TORCH_FORCE_WEIGHTS_ONLY_LOAD": "1", "CUDA_VISIBLE_DEVICES": "", "TF_CPP_MIN_LOG_LEVEL": "2"}
    report_to = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print must not end up in the report
    try:
        confine(Limits(**json.loads(sys.argv[4])))
        enter([source, Path(sys.prefix), Path(sys.base_prefix)], folder)
        report = convert(source, folder, task)
    except NoSandbox as e:
        text = f"this machine cannot hold the program that converts models: {e}"
        report = Report(findings=(Refused("SANDBOX_MISSING", text).finding,))
    except MemoryError:
        os._exit(3)
    except OSError as e:
        if e.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        os._exit(4)
    report_to.write(report.to_json())
    report_to.flush()
    os._exit(0)


if __name__ == "__main__":
    main()
