"""The engine process: loads and runs what its worker asks for, and ends with it. Run as
`python -m services.inference.engines.host SOCKET RUNS MEMORY_MIB`."""

import json
import os
import socket
import sys
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import onnxruntime as ort

from services.common.errors import EngineFailed, MercatError
from services.inference.engines import ModelRefused, session, wire
from services.inference.engines.confined import confine


class Model:
    """A session, and the names that tensors are numbered by."""

    def __init__(self, path: str, threads: int, inputs: list[str], outputs: list[str]) -> None:
        self.session = session.make(Path(path), threads)
        self.inputs, self.outputs = inputs, outputs
        self.expected = session.Expected()


class Host:
    """Answers questions as they are done, in any order."""

    def __init__(self, connection: socket.socket, runs: int) -> None:
        self._connection = connection
        self._models: dict[int, Model] = {}
        self._running: dict[int, ort.RunOptions] = {}
        self._sending = threading.Lock()
        self._pool = ThreadPoolExecutor(runs, thread_name_prefix="run")
        self._loader = ThreadPoolExecutor(1, thread_name_prefix="load")

    def serve(self) -> None:
        """Until the worker is gone."""
        with self._connection.makefile("rb", buffering=1 << 20) as reader:
            while len(head := reader.read(wire.HEAD.size)) == wire.HEAD.size:
                size, kind, question = wire.HEAD.unpack(head)
                self._take(kind, question, reader.read(size))

    def _take(self, kind: int, question: int, body: bytes) -> None:
        if kind == wire.RUN:
            model = self._models.get(int.from_bytes(body[:4], "little"))
            options = self._running[question] = ort.RunOptions()
            if model is not None and model.expected.seconds < session.INLINE and len(self._running) == 1:
                self._run(question, body, options)
            else:
                self._pool.submit(self._run, question, body, options).add_done_callback(_loudly)
        elif kind == wire.CANCEL:
            if (running := self._running.get(question)) is not None:
                running.terminate = True  # ONNX Runtime looks at it between two nodes of the graph
        elif kind == wire.LOAD:
            self._loader.submit(self._load, question, body).add_done_callback(_loudly)
        elif kind == wire.UNLOAD:
            self._models.pop(int.from_bytes(body, "little"), None)
            self._send(wire.DONE, question)

    def _load(self, question: int, body: bytes) -> None:
        what = json.loads(body)
        try:
            self._models[what["model"]] = Model(what["path"], what["threads"], what["inputs"], what["outputs"])
        except MercatError as e:
            self._send(wire.FAILED, question, e.message.encode())
        else:
            self._send(wire.DONE, question)

    def _run(self, question: int, body: bytes, options: ort.RunOptions) -> None:
        try:
            number, wanted, tensors = wire.asked(body)
            model = self._models[number]
            if options.terminate:
                raise EngineFailed("nobody waits for this run any more")
            inputs = {model.inputs[index]: array for index, array in tensors}
            started = time.perf_counter()
            arrays = session.run(model.session, inputs, [model.outputs[i] for i in wanted], options)
            model.expected.took(time.perf_counter() - started)
            parts = [part for i, array in zip(wanted, arrays, strict=True) for part in wire.tensor(i, array)]
            answer, kind = parts, wire.DONE
        except MercatError as e:
            answer, kind = [e.message.encode()], wire.REFUSED if isinstance(e, ModelRefused) else wire.FAILED
        finally:
            self._running.pop(question, None)
        self._send(kind, question, *answer)

    def _send(self, kind: int, question: int, *body: bytes) -> None:
        with self._sending:
            self._connection.sendall(wire.frame(kind, question, *body))


def _loudly(future: "Future[None]") -> None:
    """What should not happen ends the process, and with that is seen."""
    if (error := future.exception()) is not None:
        print(repr(error), file=sys.stderr, flush=True)  # noqa: T201
        os._exit(70)


def main() -> None:
    number, runs, memory_mib = (int(argument) for argument in sys.argv[1:4])
    confine(memory_mib)
    with socket.socket(fileno=number) as connection:
        Host(connection, runs).serve()
    os._exit(0)  # runs under way are for nobody


if __name__ == "__main__":
    main()
