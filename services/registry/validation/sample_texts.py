"""Text calls of a decoder in the child: prompt, options and answer as its workers make them, one token at a time."""

import time
from collections.abc import Mapping
from typing import Any

from mercat.inference.v1 import text_pb2

from services.common.texts import LENGTH, BadPrompt, Piece, Prompt
from services.common.texts.calls import Answer, Call, Model
from services.common.texts.intake import Intake
from services.common.texts.limits import Limits
from services.common.texts.messages import conversation, message, options, prompt
from services.registry.validation.decoder_run import Decoding
from services.registry.validation.report import Refused
from services.registry.validation.sample_calls import parsed

_MOST_TOKENS = 128
_MOST_SECONDS = 8.0  # of processor time, for the tokens of one answer


class TextCalls:
    """Raises EngineFailed for a model that carries no decoder's entries."""

    def __init__(self, session: Any, carried: Mapping[str, str], context: int) -> None:
        self._session = session
        self._intake = intake = Intake(carried, Limits(context=context))
        self._model = Model(intake.config, intake.tokenizer, intake.grammars)

    def __call__(self, body: dict[str, Any]) -> text_pb2.ChatResponse | text_pb2.GenerateResponse:
        """The first answer, or its beginning. Raises Refused, and what such a call raises."""
        if "messages" in body:
            chat = parsed(body, text_pb2.ChatRequest())
            asked, sampling = conversation(chat.messages, chat.tools), chat.sampling
            return message(text_pb2.ChatResponse, 0, self._pieces(asked, sampling), first=True)
        if "inputs" in body:
            raise Refused("SAMPLE_INVALID", 'the model goes on with texts: give a "prompt", or "messages"')
        generate = parsed(body, text_pb2.GenerateRequest())
        if generate.echo and not generate.prompt:
            raise BadPrompt("echo needs `prompt`")
        asked, sampling = prompt(generate.prompt, generate.prompt_tokens), generate.sampling
        made = message(text_pb2.GenerateResponse, 0, self._pieces(asked, sampling), first=True)
        if generate.echo:
            made.text = generate.prompt + made.text
        return made

    def _pieces(self, asked: Prompt, sampling: text_pb2.Sampling) -> list[Piece]:
        sampling.ClearField("logprobs")  # they are long, and nobody looks at those of a sample
        taken = self._intake.take(asked, options(sampling))
        longest = min(taken.longest, _MOST_TOKENS)
        call = Call(0, taken.tokens, taken.options, longest, taken.matcher, taken.options.seed or 0)
        answer, pieces = Answer(self._model, call, 0), list[Piece]()
        decoding = Decoding(self._session, self._intake.config, len(taken.tokens) + longest)
        logits = decoding.after(taken.tokens)
        until = time.process_time() + _MOST_SECONDS
        while True:
            if (piece := answer.go_on(logits)) is not None:
                pieces.append(piece)
                if piece.finish:
                    return pieces
            if time.process_time() > until:
                return [*pieces, Piece(0, "", 0, LENGTH)]
            logits = decoding.after([answer.last])
