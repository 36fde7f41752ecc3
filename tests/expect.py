"""What many tests expect: that a call fails, that something comes to be."""

import time
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import grpc
import pytest

from services.common.errors import MercatError, from_rpc_error


def fails(call: Callable[..., Any], *args: Any, **options: Any) -> MercatError:
    """The error that a call ends with; a stream is read to its end."""

    def ended() -> None:
        answer = call(*args, **options)
        if isinstance(answer, Iterator):
            list(answer)

    with pytest.raises(grpc.RpcError) as caught:
        ended()
    return from_rpc_error(caught.value)


async def failed(call: Awaitable[object]) -> MercatError:
    """The error that a call under way ends with."""
    with pytest.raises(grpc.RpcError) as caught:
        await call
    return from_rpc_error(caught.value)


def until(condition: Callable[[], object], seconds: float = 20) -> None:
    """Waits until the condition holds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come to be"
        time.sleep(0.05)
