"""Embeddings of texts by encoder models: tokenised here, run through the model's batcher, pooled and normalised."""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from mercat.inference.v1 import encoding_pb2, text_pb2
from mercat.registry.v1 import registry_pb2
from tokenizers import Tokenizer

from services.common import onnx_metadata
from services.common.errors import DataLoss, InvalidArgument, Violation
from services.common.rpc.context import Call
from services.common.tensors import Array
from services.common.text_model import TEXT_KEY, TOKENIZER_KEY, TextConfig
from services.common.texts import PromptTooLong
from services.inference.charge import Units
from services.inference.deployments import Deployment
from services.inference.hotpath import HotPath
from services.inference.residency import Resident
from services.inference.tickets import Ticket

_KNOWN = 64  # tokenizers kept
_AT_ONCE = 2  # runs of one call that are handed over at a time
_LONE = 16  # texts of a run where the model does not say


class NotAnEncoder(InvalidArgument, reason="NOT_AN_ENCODER"):
    """The model does not turn texts into vectors."""


@dataclass(frozen=True, slots=True)
class Encoder:
    """A version's tokenizer, without padding or truncation of its own, and its facts."""

    tokenizer: Tokenizer
    config: TextConfig


Find = Callable[[registry_pb2.Deployment], Awaitable[Path]]


class Embedder:
    """Serves Embed. `find` answers the path of a version's file."""

    def __init__(self, path: HotPath, find: Find) -> None:
        self._path = path
        self._find = find
        self._encoders: OrderedDict[str, asyncio.Task[Encoder]] = OrderedDict()

    async def embed(self, call: Call, request: text_pb2.EmbedRequest) -> text_pb2.EmbedResponse:
        """Raises what a Predict raises, NotAnEncoder, and PromptTooLong for a text that does not fit."""
        began = time.perf_counter()
        deployments, caller = self._path.deployments, call.principal
        deployment = deployments.cached(request.model, caller) or await deployments.get(request.model, caller)
        encoder = await self._encoder(deployment)
        path = self._path
        slots = await path.enter(call, deployment)
        try:
            path.meter.check()
            ids = await asyncio.to_thread(_tokenise, encoder, request.inputs, truncate=request.truncate)
            total = sum(map(len, ids))
            size = sum(len(text.encode()) for text in request.inputs)
            units: Units = (
                ("requests", 1), ("rows", len(ids)), ("input_tokens", total), ("input_bytes", size)
            )  # fmt: skip
            charge = path.charges.begin(call, deployment, began)
            await charge.hold(units)
            try:
                deadline = asyncio.get_running_loop().time() + deployment.timeout
                deadline = deadline if call.deadline is None else min(deadline, call.deadline)
                resident, cold_start_ms = await path.resident(call, deployment, deadline)
                vectors = await self._vectors(deployment, resident, ids, deadline, request.priority)
                recorded = charge.record(units)
            finally:
                charge.release()
            cost = await recorded
        finally:
            path.leave(slots)
        call.trailers += (("mercat-cost-nanos", str(cost)), ("mercat-model-version", deployment.version))
        return text_pb2.EmbedResponse(
            request_id=call.request_id, model=deployment.proto.model, version=deployment.version,
            embeddings=[text_pb2.Embedding(values=vector) for vector in vectors], input_tokens=total,
            cost_nanos=cost, cold_start_ms=cold_start_ms,
        )  # fmt: skip

    async def encode(self, call: Call, request: encoding_pb2.EncodeTextsRequest) -> encoding_pb2.EncodeTextsResponse:
        """For the platform itself: without limits, money or a record. Raises as `embed`."""
        path = self._path
        deployment = await path.deployments.get(request.model, None)
        encoder = await self._encoder(deployment)
        ids = await asyncio.to_thread(_tokenise, encoder, request.texts, truncate=True)
        deadline = asyncio.get_running_loop().time() + deployment.timeout
        deadline = deadline if call.deadline is None else min(deadline, call.deadline)
        resident, _ = await path.resident(call, deployment, deadline)
        vectors = await self._vectors(deployment, resident, ids, deadline, 0)
        return encoding_pb2.EncodeTextsResponse(
            model=deployment.proto.model, version=deployment.version,
            embeddings=[text_pb2.Embedding(values=vector) for vector in vectors],
        )  # fmt: skip

    async def count(self, deployment: Deployment, text: str) -> tuple[int, int]:
        """Tokens of a text, and the most that the model takes. Raises NotAnEncoder."""
        encoder = await self._encoder(deployment)
        ids = await asyncio.to_thread(_tokenise, encoder, [text], truncate=False, bounded=False)
        return len(ids[0]), encoder.config.context

    async def _vectors(
        self, deployment: Deployment, resident: Resident, ids: list[list[int]], deadline: float, level: int
    ) -> list[Array]:
        """One float32 [H] of length 1 each, in the order of `ids`."""
        most = deployment.max_rows or _LONE
        order = sorted(range(len(ids)), key=lambda i: len(ids[i]))  # texts of one length waste nothing on padding
        groups = [order[at : at + most] for at in range(0, len(order), most)]
        if not deployment.max_rows:
            groups = [[i] for i in order]
        window = asyncio.Semaphore(_AT_ONCE)
        found: dict[int, Array] = {}

        async def run(group: list[int]) -> None:
            async with window:
                inputs, mask = _inputs(deployment, [ids[i] for i in group])
                output = _output(deployment)
                ticket = Ticket(inputs, len(group), [output], deadline, level)
                answer = await resident.submit(ticket)
                found.update(zip(group, pooled(answer[output], mask), strict=True))

        try:
            async with asyncio.TaskGroup() as running:
                for group in groups:
                    running.create_task(run(group))
        except BaseExceptionGroup as failures:
            raise failures.exceptions[0] from None
        return [found[i] for i in range(len(ids))]

    async def _encoder(self, deployment: Deployment) -> Encoder:
        proto = deployment.proto
        if proto.text.kind != registry_pb2.TEXT_KIND_ENCODER:
            wants = "Generate" if deployment.decodes else "Predict"
            raise NotAnEncoder(f"{proto.model} does not turn texts into vectors; call {wants}")
        task = self._encoders.get(proto.version_id)
        if task is None or (task.done() and task.exception() is not None):
            task = asyncio.get_running_loop().create_task(self._read(proto))
            task.add_done_callback(lambda t: t.cancelled() or t.exception())
            self._encoders[proto.version_id] = task
            if len(self._encoders) > _KNOWN:
                self._encoders.popitem(last=False)
        else:
            self._encoders.move_to_end(proto.version_id)
        return await asyncio.shield(task)

    async def _read(self, proto: registry_pb2.Deployment) -> Encoder:
        path = await self._find(proto)
        return await asyncio.to_thread(_read, path)


def _read(path: Path) -> Encoder:
    try:
        entries = onnx_metadata.read(path)
        tokenizer = Tokenizer.from_str(entries[TOKENIZER_KEY])
        tokenizer.no_padding()
        tokenizer.no_truncation()
        return Encoder(tokenizer, TextConfig.from_json(entries[TEXT_KEY]))
    except (KeyError, ValueError, TypeError) as e:
        raise DataLoss("the version's tokenizer cannot be read", reason="ARTIFACT_CORRUPT") from e
    except OSError:
        raise
    except Exception as e:  # what the tokenizers library raises has no class of its own
        raise DataLoss("the version's tokenizer cannot be read", reason="ARTIFACT_CORRUPT") from e


def _tokenise(encoder: Encoder, texts: Sequence[str], *, truncate: bool, bounded: bool = True) -> list[list[int]]:
    """Token ids of each text, with those that the tokenizer puts around it. Raises PromptTooLong."""
    most = encoder.config.context
    found: list[list[int]] = []
    long: list[Violation] = []
    for i, encoding in enumerate(encoder.tokenizer.encode_batch(list(texts))):
        ids = encoding.ids
        if len(ids) > most and bounded:
            if not truncate:
                long.append(Violation(f"inputs[{i}]", f"{len(ids)} tokens; the model takes at most {most}"))
            else:
                ids = [*ids[: most - 1], ids[-1]]  # its closing token stays
        found.append(ids)
    if long:
        raise PromptTooLong(f"{long[0].field}: {long[0].description}; or say `truncate`", violations=long)
    return found


def _inputs(deployment: Deployment, ids: list[list[int]]) -> tuple[dict[str, Array], Array]:
    """The graph's inputs int64 [B, S], and which positions count."""
    longest = max(map(len, ids))
    tokens = np.zeros((len(ids), longest), np.int64)
    mask = np.zeros_like(tokens)
    for row, own in enumerate(ids):
        tokens[row, : len(own)] = own
        mask[row, : len(own)] = 1
    given: Mapping[str, Array] = {"input_ids": tokens, "attention_mask": mask, "token_type_ids": np.zeros_like(tokens)}
    return {name: given[name].astype(spec.dtype) for name, spec in deployment.signature.inputs.items()}, mask


def _output(deployment: Deployment) -> str:
    """The first output that holds vectors: of every position, or one of the whole text."""
    outputs = deployment.signature.outputs
    return next(name for rank in (3, 2) for name, spec in outputs.items() if len(spec.shape) == rank)


def pooled(states: Array, mask: Array) -> Array:
    """Float32 [B, H] of length 1: the mean over the positions that count of [B, S, H], or [B, H] as it is."""
    if states.ndim == 3:
        weights = mask[:, :, None].astype(np.float32)
        states = (states * weights).sum(1) / np.maximum(weights.sum(1), 1e-9)
    states = states.astype(np.float32)
    lengths: Array = np.maximum(np.linalg.norm(states, axis=1, keepdims=True), 1e-12)
    return np.divide(states, lengths)
