"""Keys and values of the contexts under way, and the model run on them in place."""

import math
import mmap
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from services.common.errors import EngineFailed
from services.common.text_model import TextConfig

Floats = NDArray[np.float32]


class Slab:
    """float32 [layers, 2, rows, kv_heads, capacity, head_dim], keys first. Rows of one layer lie one behind the other,
    so that any run of rows is a batch. Memory that no context reached is not resident."""

    def __init__(self, config: TextConfig, rows: int, capacity: int) -> None:
        """Raises EngineFailed."""
        shape = (config.layers, 2, rows, config.kv_heads, capacity, config.head_dim)
        try:
            self._memory = mmap.mmap(-1, math.prod(shape) * 4, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        except (OSError, ValueError, OverflowError) as e:
            raise EngineFailed("there is no memory for the model's keys and values") from e
        if hasattr(mmap, "MADV_NOHUGEPAGE"):
            self._memory.madvise(mmap.MADV_NOHUGEPAGE)  # a huge page would be a whole row of a small model
        self.array: Floats = np.frombuffer(self._memory, np.float32).reshape(shape)
        self.rows, self.capacity = rows, capacity

    def copy(self, row: int, to: int, length: int) -> None:
        """A context's first tokens into another row."""
        self.array[:, :, to, :, :length] = self.array[:, :, row, :, :length]

    def read(self, row: int, start: int, end: int) -> Floats:
        """[layers, 2, kv_heads, end - start, head_dim], a copy."""
        block: Floats = self.array[:, :, row, :, start:end].copy()
        return block

    def write(self, row: int, start: int, block: Floats) -> None:
        """What `read` gave."""
        self.array[:, :, row, :, start : start + block.shape[3]] = block

    def free(self, row: int) -> None:
        """Gives a row's memory back to the machine; it reads as zeros after that."""
        size = math.prod(self.array.shape[3:]) * 4
        for part in range(self.array.shape[0] * 2):
            start = (part * self.rows + row) * size
            first = -(-start // mmap.PAGESIZE) * mmap.PAGESIZE
            last = (start + size) // mmap.PAGESIZE * mmap.PAGESIZE
            if first < last:
                self._memory.madvise(mmap.MADV_DONTNEED, first, last - first)


class Runner:
    """The graph, bound to a slab: past and present are the same memory, so a run moves nothing.

    A token's keys, values and logits are the same bits whatever rows run beside it, and in whatever pieces a prompt is
    run, but for single tokens: those go through other kernels, which round differently.
    """

    def __init__(self, session: ort.InferenceSession, config: TextConfig, slab: Slab) -> None:
        self._session, self._config, self._slab = session, config, slab
        self._bindings: dict[tuple[int, int], ort.IOBinding] = {}
        self._ids = np.zeros((slab.rows, 1), np.int64)
        self._past = np.zeros(slab.rows, np.int32)
        self._total = np.zeros((), np.int32)
        self._logits: Floats = np.empty((slab.rows, config.vocabulary), np.float32)

    def step(self, tokens: Sequence[int], lengths: Sequence[int]) -> Floats:
        """One more token of each of the first rows, at least one; `lengths`: tokens that they hold. Answers float32
        [rows, vocabulary], valid until the next run. Raises EngineFailed."""
        count = len(tokens)
        binding = self._bound(0, count)
        self._ids[:count, 0] = tokens
        self._past[:count] = lengths
        self._total[()] = max(lengths) + 1
        self._run(binding)
        logits: Floats = self._logits[:count]
        return logits

    def prefill(self, row: int, tokens: Sequence[int], past: int) -> Floats:
        """More tokens of one row, which holds `past` of them. Answers float32 [vocabulary] of the last one, valid until
        the next run. Raises EngineFailed."""
        binding = self._bound(row, 1)
        ids = np.array([tokens], np.int64)
        binding.bind_input("input_ids", "cpu", 0, np.int64, ids.shape, ids.ctypes.data)
        self._past[row] = past + len(tokens) - 1
        self._total[()] = past + len(tokens)
        self._run(binding)
        logits: Floats = self._logits[row]
        return logits

    def _run(self, binding: ort.IOBinding) -> None:
        try:
            self._session.run_with_iobinding(binding)
        except Exception as e:  # ONNX Runtime's exceptions share no base class
            raise EngineFailed("the model failed") from e

    def _bound(self, row: int, count: int) -> ort.IOBinding:
        if (binding := self._bindings.get((row, count))) is None:
            try:
                binding = self._bindings[row, count] = self._bind(row, count)
            except RuntimeError as e:
                raise EngineFailed("the graph is not as the model says") from e
        return binding

    def _bind(self, row: int, count: int) -> ort.IOBinding:
        binding = self._session.io_binding()

        def give(name: str, array: NDArray[np.generic]) -> None:
            binding.bind_input(name, "cpu", 0, array.dtype.type, array.shape, array.ctypes.data)

        rows = slice(row, row + count)
        give("input_ids", self._ids[rows])
        give("seqlens_k", self._past[rows])
        give("total_sequence_length", self._total)
        for layer in range(self._config.layers):
            for part, name in enumerate(("key", "value")):
                memory = self._slab.array[layer, part, rows]
                give(f"past_key_values.{layer}.{name}", memory)
                binding.bind_output(f"present.{layer}.{name}", "cpu", 0, np.float32, memory.shape, memory.ctypes.data)
        logits = self._logits[rows]
        binding.bind_output("logits", "cpu", 0, np.float32, logits.shape, logits.ctypes.data)
        return binding


def session(path: Path, threads: int) -> ort.InferenceSession:
    """Raises EngineFailed."""
    ort.set_default_logger_severity(4)
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # cores are shared
    try:
        return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as e:
        raise EngineFailed("the model could not be loaded") from e
