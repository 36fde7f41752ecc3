"""Calls that come several at a time: those of a batch, of a stream, of a job. Each is a call of its own, with its own
request id and record, and its outcome is a response or an error in its place."""

import logging
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import TypeAlias

from google.rpc import status_pb2
from mercat.inference.v1 import inference_pb2

from services.common import ids
from services.common.errors import Internal, MercatError, to_status
from services.common.rpc.context import Call, enter
from services.common.rpc.policy import validate

log = logging.getLogger(__name__)
Predict = Callable[[Call, inference_pb2.PredictRequest], Awaitable[inference_pb2.PredictResponse]]
Entry: TypeAlias = inference_pb2.PredictRequest | inference_pb2.StreamPredictRequest
Outcome: TypeAlias = inference_pb2.PredictResponse | status_pb2.Status


def request_id(parent: str, index: int) -> str:
    """The request id of the entry at `index` of what has the id `parent`: whoever runs the entry again does so under
    the same id, which is what makes a second record of it fall away."""
    return ids.derived("req", parent, index)


def call_of(opened: Call, identifier: str) -> Call:
    """A call of its own, by the same caller and with the same deadline."""
    return replace(opened, request_id=identifier, arrived_ms=ids.milliseconds(identifier), span=None, trailers=[])


async def run(predict: Predict, call: Call, message: Entry | None) -> inference_pb2.PredictResponse:
    """Checks and runs one entry; None is one that could not be read. Must be in a task of its own, for it becomes the
    task's call.

    Raises:
        MercatError: whatever the call alone would have been refused with; what is unknown is logged and INTERNAL.
    """
    enter(call)
    try:
        validate(message)
        assert message is not None
        return await predict(call, message if isinstance(message, inference_pb2.PredictRequest) else message.request)
    except MercatError:
        raise
    except Exception:
        log.exception("%s %s failed", call.method, call.request_id)
        raise Internal("an internal error; tell support the request id") from None


async def outcome(predict: Predict, call: Call, message: Entry | None) -> Outcome:
    """Like `run`, with the error as the answer."""
    try:
        return await run(predict, call, message)
    except MercatError as e:
        return to_status(e, call.request_id)


def result(index: int, found: Outcome) -> inference_pb2.PredictResult:
    """What an entry gave, in its place."""
    if isinstance(found, status_pb2.Status):
        return inference_pb2.PredictResult(index=index, error=found)
    return inference_pb2.PredictResult(index=index, response=found)
