"""ONNX Runtime as the child uses it: on one thread, and without a word of its own."""

import resource
import sys
import time
from pathlib import Path
from typing import Any

from services.registry.validation.report import Refused

_NO_MEMORY = ("bad_alloc", "bad allocation", "Failed to allocate memory")  # how ONNX Runtime says it


def load(path: Path) -> tuple[Any, int]:
    """A session, and how long its loading took, microseconds. Raises Refused, MemoryError."""
    import onnxruntime as ort

    ort.set_default_logger_severity(4)
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    before = time.perf_counter()
    try:
        session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as e:
        no_memory(e)
        raise Refused("ENGINE_REFUSES", f"ONNX Runtime cannot load it: {first_line(e, path)}") from None
    return session, int((time.perf_counter() - before) * 1e6)


def no_memory(error: Exception) -> None:
    """Raises MemoryError when that is what the engine's error means."""
    if isinstance(error, MemoryError) or any(text in str(error) for text in _NO_MEMORY):
        raise MemoryError from error


def first_line(error: Exception, path: Path) -> str:
    """Without the folder of this machine that the file happens to lie in."""
    return str(error).replace(str(path), "the file").strip().partition("\n")[0][:500]


def peak_memory() -> int:
    """Bytes this process held at most. On Linux `ru_maxrss` would not do: it outlives the start of a program, so that
    it begins at what the parent holds."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
        return int(next(line for line in lines if line.startswith("VmHWM:")).split()[1]) * 1024
    except (OSError, StopIteration):
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024
