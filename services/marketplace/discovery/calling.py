"""What organisations call, as usage has recorded it."""

from datetime import timedelta

from google.protobuf.timestamp_pb2 import Timestamp
from mercat.usage.v1 import callers_pb2, callers_pb2_grpc

from services.common.clock import Clock
from services.common.rpc.channels import InternalChannel

_LATELY = timedelta(days=90)


class Calling:
    """Asks usage, which other questions must not wait for: never within a transaction."""

    def __init__(self, control: InternalChannel, clock: Clock) -> None:
        self._callers = callers_pb2_grpc.CallerServiceStub(control)
        self._clock = clock

    async def all(self, org_id: str = "") -> list[callers_pb2.Caller]:
        """What each organisation called within 90 days, or one alone."""
        start = Timestamp()
        start.FromDatetime(self._clock.now() - _LATELY)
        request = callers_pb2.ListCallersRequest(start_time=start, org_id=org_id)
        return [caller async for page in self._callers.ListCallers(request) for caller in page.callers]

    async def models(self, org_id: str) -> list[str]:
        return [model for caller in await self.all(org_id) for model in caller.models]
