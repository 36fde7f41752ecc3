"""What a process serves itself, asked through the channel that others ask it through."""
# ruff: noqa: N802 - generated code names the methods

import asyncio

import pytest
from mercat.billing.v1 import billing_pb2, billing_pb2_grpc
from redis.asyncio import Redis

from services.common.errors import BudgetExceeded, DeadlineExceeded, PermissionDenied
from services.common.limits import Limiter
from services.common.rpc.channels import InternalChannel
from services.common.rpc.context import Context, maybe_current
from services.common.rpc.pipeline import Guard
from services.common.rpc.principals import Principals
from services.common.rpc.server import Server

TOKEN = "token"


class Leases(billing_pb2_grpc.LeaseServiceServicer):
    def __init__(self) -> None:
        self.kept = billing_pb2.PostUsageResponse(posted=7)
        self.cancelled = asyncio.Event()

    async def PostUsage(self, request: billing_pb2.PostUsageRequest, context: Context) -> billing_pb2.PostUsageResponse:
        assert maybe_current() is not None
        assert 0 < context.time_remaining() <= 15  # type: ignore[operator]
        return self.kept

    async def AcquireLease(
        self, request: billing_pb2.AcquireLeaseRequest, context: Context
    ) -> billing_pb2.AcquireLeaseResponse:
        raise BudgetExceeded("nothing is left", metadata={"budget": request.org_id}, retry_after=60)

    async def CloseLeases(
        self, request: billing_pb2.CloseLeasesRequest, context: Context
    ) -> billing_pb2.CloseLeasesResponse:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            self.cancelled.set()
            raise
        return billing_pb2.CloseLeasesResponse()


@pytest.fixture
async def leases() -> Leases:
    return Leases()


@pytest.fixture
async def stub(leases: Leases) -> billing_pb2_grpc.LeaseServiceStub:
    """Nothing listens at the channel's address: what is answered was answered here."""
    return asked(leases, TOKEN)


def asked(leases: Leases, token: str) -> billing_pb2_grpc.LeaseServiceStub:
    channel, server = InternalChannel("127.0.0.1:1", token), Server()
    guard = Guard(TOKEN, Principals(channel), Limiter(Redis(port=1)))
    server.add((billing_pb2_grpc.add_LeaseServiceServicer_to_server, leases), guard)
    channel.here = server.here
    return billing_pb2_grpc.LeaseServiceStub(channel)


async def test_the_reply_is_the_callers_own(leases: Leases, stub: billing_pb2_grpc.LeaseServiceStub) -> None:
    reply = await stub.PostUsage(billing_pb2.PostUsageRequest())
    assert reply == leases.kept
    reply.posted = 1
    assert leases.kept.posted == 7
    assert maybe_current() is None


async def test_an_error_is_the_one_that_was_raised(stub: billing_pb2_grpc.LeaseServiceStub) -> None:
    with pytest.raises(BudgetExceeded, match="nothing is left") as raised:
        await stub.AcquireLease(
            billing_pb2.AcquireLeaseRequest(org_id="org_1", worker_id="w", minimum_nanos=1, wanted_nanos=1)
        )
    assert raised.value.metadata["budget"] == "org_1"
    assert raised.value.retry_after == 60


async def test_what_takes_too_long_is_ended(leases: Leases, stub: billing_pb2_grpc.LeaseServiceStub) -> None:
    with pytest.raises(DeadlineExceeded):
        await stub.CloseLeases(billing_pb2.CloseLeasesRequest(worker_id="w"), timeout=0.05)
    await asyncio.wait_for(leases.cancelled.wait(), 5)


async def test_who_gives_up_ends_it(leases: Leases, stub: billing_pb2_grpc.LeaseServiceStub) -> None:
    asking = asyncio.create_task(stub.CloseLeases(billing_pb2.CloseLeasesRequest(worker_id="w")))
    await asyncio.sleep(0.05)
    asking.cancel()
    await asyncio.wait_for(leases.cancelled.wait(), 5)


async def test_another_token_is_refused(leases: Leases) -> None:
    with pytest.raises(PermissionDenied, match="own services"):
        await asked(leases, "other").PostUsage(billing_pb2.PostUsageRequest())
