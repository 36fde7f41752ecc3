"""Several Predicts in one call, and Predicts over one stream."""

import asyncio
from collections.abc import AsyncIterator

from google.rpc import status_pb2
from mercat.inference.v1 import inference_pb2

from services.common import ids
from services.common.errors import ResourceExhausted, to_status
from services.common.rpc.context import Call
from services.inference import endings, entries
from services.inference.entries import Outcome, Predict

# Entries of one batch under way: few at first, one more with each that ends, so that what answers may be is known
# before many of them are coming.
_AT_FIRST, _AT_ONCE = 8, 128
_ANSWER = 63 << 20  # bytes of outcomes in one answer; the message may have 64 MiB
_STREAM_DEPTH = 64  # calls of one stream under way


class BatchTooLarge(ResourceExhausted, reason="BATCH_TOO_LARGE"):
    """The answers of a batch are more than one message holds."""


class Batch:
    """One BatchPredict under way."""

    def __init__(self, predict: Predict, opened: Call) -> None:
        self._predict = predict
        self._opened = opened
        self._window = asyncio.Semaphore(_AT_FIRST)
        self._wide = _AT_FIRST
        self._running = 0
        self._bytes = 0  # of the outcomes so far
        self._largest = 0

    async def run(self, requests: list[inference_pb2.PredictRequest]) -> inference_pb2.BatchPredictResponse:
        """Runs every entry and answers in their order. Cancelled, it cancels those under way."""
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(self._one(i, request)) for i, request in enumerate(requests)]
        response = inference_pb2.BatchPredictResponse()
        left = _ANSWER
        for i, task in enumerate(tasks):
            found = task.result()
            failed = isinstance(found, status_pb2.Status)
            if not failed:
                response.cost_nanos += found.cost_nanos
                left -= found.ByteSize()
                if left < 0:  # those that were under way together were larger than any before them
                    left += found.ByteSize()
                    found, failed = (
                        self._refused(i, "this entry ran and was charged, but its answer does not fit"),
                        True,
                    )
            response.failed_count += failed
            response.results.append(entries.result(i, found))
        return response

    async def _one(self, index: int, request: inference_pb2.PredictRequest) -> Outcome:
        async with self._window:
            if self._bytes + (self._running + 1) * self._largest > _ANSWER:
                return self._refused(index, "this entry was not run: the answer might grow past 64 MiB")
            self._running += 1
            try:
                call = entries.call_of(self._opened, entries.request_id(self._opened.request_id, index))
                found = await entries.outcome(self._predict, call, request)
                endings.pass_on(call, self._opened)
            finally:
                self._running -= 1
            size = found.ByteSize()
            self._bytes += size
            self._largest = max(self._largest, size)
            if self._wide < _AT_ONCE:
                self._wide += 1
                self._window.release()
            return found

    def _refused(self, index: int, text: str) -> status_pb2.Status:
        error = BatchTooLarge(f"{text}; send fewer entries at once, or make a job of them")
        return to_status(error, entries.request_id(self._opened.request_id, index))


async def stream(
    predict: Predict, requests: AsyncIterator[inference_pb2.StreamPredictRequest | None], opened: Call
) -> AsyncIterator[inference_pb2.StreamPredictResponse]:
    """Answers requests in their order, many of them under way; the stream is read no further while that many are.
    Closed early, it cancels those under way.

    Raises:
        MercatError: the credential ends; after the answers to what came before.
    """
    running: asyncio.Queue[asyncio.Task[inference_pb2.StreamPredictResponse] | Exception | None]
    running = asyncio.Queue(_STREAM_DEPTH - 1)  # and the one that is awaited

    async def read() -> None:
        index = 0
        try:
            async for request in requests:
                task = asyncio.create_task(_answer(predict, request, index, opened))
                try:
                    await running.put(task)
                except asyncio.CancelledError:
                    task.cancel()
                    raise
                index += 1
        except Exception as e:
            await running.put(e)
        else:
            await running.put(None)

    reader = asyncio.create_task(read())
    try:
        while (task := await running.get()) is not None:
            if isinstance(task, Exception):
                raise task
            yield await task
    finally:
        reader.cancel()
        while not running.empty():
            if isinstance(left := running.get_nowait(), asyncio.Task):
                left.cancel()


async def _answer(
    predict: Predict, request: inference_pb2.StreamPredictRequest | None, index: int, opened: Call
) -> inference_pb2.StreamPredictResponse:
    call = entries.call_of(opened, ids.new("req"))
    found = await entries.outcome(predict, call, request)
    endings.pass_on(call, opened)
    response = inference_pb2.StreamPredictResponse(id=request.id if request is not None else "", index=index)
    if isinstance(found, status_pb2.Status):
        response.error.CopyFrom(found)
    else:
        response.response.CopyFrom(found)
    return response
