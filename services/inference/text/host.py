"""The process of one decoder model: loads it, answers what its worker asks, and ends with it. Run as
`python -m services.inference.text.host SOCKET MEMORY_MIB`.

Three threads: this one reads, one makes tokens of prompts, and one generates."""

import json
import os
import socket
import sys
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from services.common.errors import MercatError
from services.common.texts.intake import Intake
from services.common.texts.limits import Limits
from services.inference.engines.confined import confine
from services.inference.engines.wire import HEAD
from services.inference.text import wire
from services.inference.text.decoder.engine import Engine
from services.inference.text.news import Event

_SWITCH = 0.0005  # seconds after which a thread that makes tokens of a prompt lets the one that generates go on


class Host:
    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._sending = threading.Lock()
        self._prompts = ThreadPoolExecutor(1, thread_name_prefix="prompts")
        self._engine: Engine | None = None
        self._intake: Intake | None = None  # where the model itself runs elsewhere

    def serve(self) -> None:
        """Until the worker is gone."""
        with self._connection.makefile("rb", buffering=1 << 20) as reader:
            while len(head := reader.read(HEAD.size)) == HEAD.size:
                size, kind, number = HEAD.unpack(head)
                self._take(kind, number, json.loads(reader.read(size)))

    def _take(self, kind: int, number: int, body: Any) -> None:
        if kind == wire.GENERATE:
            self.engine.generate(number, body["account"], body["level"], body["seconds"])
        elif kind == wire.CANCEL:
            self.engine.cancel(number)
        else:
            self._prompts.submit(self._answer, kind, number, body).add_done_callback(_loudly)

    @property
    def engine(self) -> Engine:
        assert self._engine is not None
        return self._engine

    @property
    def intake(self) -> Intake:
        assert self._intake is not None
        return self._intake

    def _answer(self, kind: int, number: int, body: Any) -> None:
        try:
            answer: Any = None
            if kind == wire.LOAD:
                answer = self._load(Path(body["path"]), Limits(**body["limits"]))
            elif kind == wire.INTAKE:
                self._intake = Intake.of(Path(body["path"]), Limits(**body["limits"]))
                answer = self._intake.context_tokens
            elif kind == wire.FORGET:
                self.engine.forget(number)
                return
            else:
                prompt, options = wire.asked(body)
                if kind == wire.COUNT:
                    answer = (self._intake or self.engine).count(prompt)
                elif kind == wire.WRITE:
                    answer = wire.written(self.intake.write(prompt, options))
                else:
                    prepared = self.engine.prepare(number, prompt, options)
                    answer = prepared.input_tokens, prepared.most_tokens
        except MercatError as e:
            self._send(wire.message(wire.FAILED, number, wire.error(e)))
        else:
            self._send(wire.message(wire.DONE, number, answer))

    def _load(self, path: Path, limits: Limits) -> int:
        self._engine = engine = Engine(path, limits, self._tell)
        threading.Thread(target=self._generate, name="decode", daemon=True).start()
        return engine.context_tokens

    def _generate(self) -> None:
        try:
            self.engine.loop.run()
        except BaseException as e:
            _end(e)

    def _tell(self, events: list[Event]) -> None:
        self._send(wire.message(wire.NEWS, 0, wire.news(events, self.engine.stats)))

    def _send(self, data: bytes) -> None:
        with self._sending:
            self._connection.sendall(data)


def _loudly(future: "Future[None]") -> None:
    if (error := future.exception()) is not None:
        _end(error)


def _end(error: BaseException) -> None:
    """What should not happen ends the process, and with that is seen."""
    print(repr(error), file=sys.stderr, flush=True)  # noqa: T201
    os._exit(70)


def main() -> None:
    number, memory_mib = (int(argument) for argument in sys.argv[1:3])
    confine(memory_mib)
    sys.setswitchinterval(_SWITCH)
    with socket.socket(fileno=number) as connection:
        Host(connection).serve()
    os._exit(0)  # answers under way are for nobody


if __name__ == "__main__":
    main()
