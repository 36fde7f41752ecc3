"""Receipts of calls, put together from what usage recorded, what was in force, and what was published."""

from mercat.billing.v1 import billing_pb2, billing_pb2_grpc
from mercat.registry.v1 import registry_pb2, registry_pb2_grpc
from mercat.usage.v1 import usage_pb2, usage_pb2_grpc

from services.billing.ledger import CURRENCY
from services.billing.prices.store import PriceStore
from services.common import receipts
from services.common.clock import Clock
from services.common.db import Database
from services.common.errors import UsageRecordNotFound
from services.common.rpc.channels import InternalChannel
from services.common.rpc.context import Context, caller
from services.common.signing import KeyFile


class ReceiptServicer(billing_pb2_grpc.ReceiptServiceServicer):
    """Serves `mercat.billing.v1.ReceiptService`."""

    def __init__(
        self, database: Database, prices: PriceStore, control: InternalChannel, keys: KeyFile, clock: Clock
    ) -> None:
        self._database = database
        self._prices = prices
        self._usage = usage_pb2_grpc.SettlementServiceStub(control)
        self._registry = registry_pb2_grpc.DeploymentServiceStub(control)
        self._keys = keys
        self._clock = clock

    async def GetReceipt(
        self, request: billing_pb2.GetReceiptRequest, context: Context
    ) -> billing_pb2.GetReceiptResponse:
        record = await self._record(request.request_id)
        version = registry_pb2.ResolveDigestRequest(model_id=record.model_id, version=record.version)
        receipt = billing_pb2.Receipt(
            request_id=record.request_id, timestamp=record.timestamp, org_id=record.org_id, key_id=record.key_id,
            model=record.model, version=record.version,
            model_digest=(await self._registry.ResolveDigest(version)).digest, units=record.units,
            cost_nanos=record.cost_nanos, currency=CURRENCY, test=record.test,
            rating=record.rating if record.HasField("rating") else None,
            corrections=record.corrections,
        )  # fmt: skip
        if record.price_id:
            async with self._database.connection() as connection:
                price = await self._prices.get_price_by_id(connection, record.price_id)
            assert price is not None, "prices are never deleted"
            receipt.price.CopyFrom(price)
            receipt.currency = price.currency
        receipt.signed = receipts.sign(receipt, self._keys.first, self._clock.now())
        return billing_pb2.GetReceiptResponse(receipt=receipt)

    async def _record(self, request_id: str) -> usage_pb2.UsageRecord:
        """Of a call of the caller's organisation. Raises UsageRecordNotFound."""
        async for page in self._usage.ExportUsage(usage_pb2.ExportUsageRequest(request_ids=[request_id])):
            for record in page.records:
                if record.org_id == caller().org_id and not record.corrects:
                    return record
        raise UsageRecordNotFound

    async def GetReceiptKeys(
        self, request: billing_pb2.GetReceiptKeysRequest, context: Context
    ) -> billing_pb2.GetReceiptKeysResponse:
        return billing_pb2.GetReceiptKeysResponse(keys=[key.public_jwk() for key in self._keys.keys])
