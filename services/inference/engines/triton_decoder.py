"""`TritonDecoder`: a version on Triton that goes on with texts, by the tensors of Triton's vLLM backend
(https://github.com/triton-inference-server/vllm_backend). Prompts are written in a process beside the worker and sent
as text; what comes back is text and how many tokens it is."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from itertools import count
from typing import Any

from tritonclient.grpc import service_pb2

from services.common.errors import EngineFailed, InvalidFields, Violation
from services.common.texts import LENGTH, STOP, Options, Piece, Prompt, Written
from services.inference.engines import EngineUnavailable
from services.inference.engines.triton_version import Crashed, Gone, TritonVersion
from services.inference.text import Prepared, sampling_parameters
from services.inference.text.process import DecoderProcess
from services.inference.tickets import TooLate

_FLAGS = ("stream", "exclude_input_in_output", "return_finish_reason", "return_num_output_tokens")


class TritonDecoder:
    """A decoder model, as `Decoder` says. What Triton knew of a prompt it does not tell, nor log-probabilities."""

    def __init__(self, version: TritonVersion, prompts: DecoderProcess) -> None:
        self.context_tokens = 0
        self.version, self._prompts = version, prompts
        self._written: dict[int, Written] = {}
        self._numbers = count(1)

    async def open(self) -> None:
        """Raises EngineFailed, EngineUnavailable."""
        await self.version.ensure()
        await self._prompts.open()
        self.context_tokens = self._prompts.context_tokens

    async def count(self, prompt: Prompt) -> int:
        return await self._prompts.count(prompt)

    async def prepare(self, prompt: Prompt, options: Options) -> Prepared:
        if options.logprobs is not None:
            untold = Violation("sampling.logprobs", "this version runs where no log-probabilities are told")
            raise InvalidFields(violations=[untold])
        written = await self._prompts.write(prompt, options)
        number = next(self._numbers)
        self._written[number] = written
        return Prepared(number, written.tokens, written.longest * written.options.n)

    def forget(self, prepared: Prepared) -> None:
        self._written.pop(prepared.number, None)

    async def generate(
        self, prepared: Prepared, *, account: str, level: int = 0, deadline: float = float("inf")
    ) -> AsyncGenerator[list[Piece], None]:
        written = self._written.pop(prepared.number)
        loop = asyncio.get_running_loop()

        async def begin() -> tuple[AsyncGenerator[Any, None], Any]:
            seconds = deadline - loop.time()
            if seconds <= 0:
                raise TooLate("there is no time left for a token before the deadline")
            answers = self.version.engine.stream(self._requests(written, account, level, seconds), seconds)
            try:
                return answers, await anext(answers, None)
            except BaseException:
                await answers.aclose()
                raise

        answers, answer = await self.version.held(begin)
        left, going = prepared.most_tokens, set(range(written.options.n))
        async with aclosing(answers):
            try:
                while answer is not None:
                    piece = _piece(answer)
                    left -= piece.tokens
                    if left < 0 or piece.index not in going:
                        raise EngineFailed("Triton answers more than was asked for")
                    if piece.finish:
                        going.discard(piece.index)
                    yield [piece]
                    answer = await anext(answers, None)
            except Crashed as e:
                self.version.revive()
                raise EngineFailed("the engine failed") from e
            except (Gone, EngineUnavailable) as e:
                raise EngineFailed("Triton went away before the answer had ended") from e
        if going:
            raise EngineFailed("Triton's answer has no end")

    async def unload(self) -> None:
        await self._prompts.unload()
        await self.version.unload()

    def _requests(self, written: Written, account: str, level: int, seconds: float) -> list[Any]:
        """One an answer. `account` and `level` are for Mercat's own backend, which serves accounts in turn."""
        return [self._request(written, index, account, level, seconds) for index in range(written.options.n)]

    def _request(self, written: Written, index: int, account: str, level: int, seconds: float) -> Any:
        made = service_pb2.ModelInferRequest(
            model_name=self.version.name, model_version=str(self.version.number), id=str(index)
        )
        parameters = sampling_parameters.write(written.options, written.longest, index)
        for name, text in (("text_input", written.text), ("sampling_parameters", parameters)):
            data = text.encode()
            made.inputs.add(name=name, datatype="BYTES", shape=[1])
            made.raw_input_contents.append(len(data).to_bytes(4, "little") + data)
        for name in _FLAGS:
            made.inputs.add(name=name, datatype="BOOL", shape=[1])
            made.raw_input_contents.append(b"\1")
        made.parameters["account"].string_param = account
        made.parameters["level"].int64_param = level
        if seconds < float("inf"):
            made.parameters["timeout"].int64_param = max(1, int(seconds * 1e6))
        return made


def _piece(answer: Any) -> Piece:
    """Raises EngineFailed."""
    found = {o.name: raw for o, raw in zip(answer.outputs, answer.raw_output_contents, strict=True)}
    try:
        finish = _text(found["finish_reason"])
        tokens = int.from_bytes(found["num_output_tokens"][:4], "little")
        return Piece(int(answer.id), _text(found["text_output"]), tokens, finish if finish in (STOP, LENGTH) else "")
    except (KeyError, ValueError) as e:
        raise EngineFailed("Triton's answer is none of a decoder's") from e


def _text(raw: bytes) -> str:
    return raw[4 : 4 + int.from_bytes(raw[:4], "little")].decode(errors="replace")
