"""One inference call, in order: what → may they → run → count → reply. Who calls was settled by the pipeline.

Everything a call needs is already in the process; the network is asked only on a miss, and once for the record."""

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from mercat.common.v1 import policy_pb2
from mercat.usage.v1 import usage_pb2

from services.common import failpoints, ids, money
from services.common.errors import DeadlineExceeded
from services.common.limits import CLASSES, Limiter
from services.common.rpc.context import Call
from services.inference.deployments import Deployment, Deployments
from services.inference.metering import Meter
from services.inference.tensors import Array, Signature
from services.inference.wallets import Lease, Wallets

Inputs = dict[str, Array]
_LIMIT = CLASSES[policy_pb2.RATE_CLASS_INFERENCE]


@dataclass(slots=True)
class Priced:
    """What a call counts as and costs, nanos."""

    rows: int
    units: dict[str, int]
    cost: int


@dataclass(slots=True)
class Result:
    """What a call gave: the deployment that ran, its outputs and its cost in nanos."""

    deployment: Deployment
    outputs: Mapping[str, Array]
    cost: int


class HotPath:
    """Runs calls. Stateless but for what its parts remember."""

    def __init__(self, deployments: Deployments, wallets: Wallets, meter: Meter, limiter: Limiter, region: str) -> None:
        self.deployments = deployments
        self._wallets = wallets
        self._meter = meter
        self._limiter = limiter
        self._region = region

    async def run(
        self, call: Call, reference: str, read: Callable[[Signature], Inputs], wanted: Callable[[Signature], list[str]]
    ) -> Result:
        """Runs a model once for the caller and records it.

        Args:
            call: the call under way; gets the reply's trailers.
            reference: `publisher/name`, with `@version` or `:alias`.
            read: makes the inputs from the request, checked against the signature.
            wanted: the names of the outputs asked for.

        Raises:
            ModelNotFound, BadTensor, RateLimited, InsufficientCredit, QueueFull, DeadlineExceeded, ModelRefused,
            EngineFailed, Unavailable: none of them is charged.
        """
        loop = asyncio.get_running_loop()
        arrived, began = loop.time(), time.perf_counter()
        deployment = self.deployments.cached(reference) or await self.deployments.get(reference)
        signature = deployment.signature
        inputs = read(signature)
        outputs = wanted(signature)
        priced = self.price(deployment, inputs)
        cost = 0 if call.principal.test else priced.cost
        await self._limiter.take(_LIMIT, call.principal.key_id or call.principal.user_id)
        self._meter.check()
        failpoints.passing("inference.before_reserve")
        wallets, org_id = self._wallets, call.principal.org_id
        lease: Lease | None = None
        if cost:
            lease = wallets.hold(org_id, cost) or await wallets.acquire(org_id, cost)
        spent = False
        try:
            deadline = arrived + deployment.timeout
            if call.deadline is not None and call.deadline < deadline:
                deadline = call.deadline
            answer = await self._infer(deployment, inputs, priced.rows, outputs, deadline)
            failpoints.passing("inference.after_engine")
            if lease is not None:
                wallets.check(lease)
            record = self._record(call, deployment, priced, cost, lease, int((time.perf_counter() - began) * 1e6))
            spent = True  # from here on the record is published, whatever becomes of the caller
            await self._meter.record(record)
        finally:
            if lease is not None:
                wallets.settle(lease, cost, spent=spent)
        call.trailers.append(("mercat-cost-nanos", str(cost)))
        call.trailers.append(("mercat-model-version", deployment.proto.version))
        return Result(deployment, answer, cost)

    def price(self, deployment: Deployment, inputs: Inputs) -> Priced:
        """Counts a call's units and prices them. Raises BadTensor when there are more rows than the model takes."""
        rows = deployment.signature.rows(inputs)
        if deployment.max_rows and rows > deployment.max_rows:
            deployment.signature.refuse_rows(rows, deployment.max_rows)
        units = {"requests": 1, "rows": rows, "input_bytes": sum(a.nbytes for a in inputs.values())}
        return Priced(rows, units, money.cost(deployment.components, units) if deployment.components else 0)

    async def _infer(
        self, deployment: Deployment, inputs: Inputs, rows: int, outputs: list[str], deadline: float
    ) -> Mapping[str, Array]:
        try:
            async with asyncio.timeout_at(deadline):
                resident = deployment.resident or await self.deployments.resident(deployment)
                return await resident.batcher.submit(inputs, rows, outputs, deadline)
        except TimeoutError:
            raise DeadlineExceeded("the model did not answer before the deadline") from None

    def _record(
        self, call: Call, deployment: Deployment, priced: Priced, cost: int, lease: Lease | None, latency_us: int
    ) -> usage_pb2.UsageRecord:
        principal, proto = call.principal, deployment.proto
        record = usage_pb2.UsageRecord(
            request_id=call.request_id, org_id=principal.org_id, user_id=principal.user_id, key_id=principal.key_id,
            model_id=proto.model_id, model=proto.model, version=proto.version, publisher_org_id=proto.org_id,
            units=priced.units, price_id=deployment.price_id, cost_nanos=cost, latency_us=latency_us,
            region=self._region, test=principal.test, lease_id=lease.lease_id if lease else "",
        )  # fmt: skip
        # The arrival is the time inside the id, which is what makes (request_id, timestamp) as unique as request_id.
        record.timestamp.FromMilliseconds(ids.milliseconds(call.request_id))
        return record
