"""What callers may have free of a model. How much of it is left is counted where calls are charged: the workers are
asked, so that it is what the next call finds."""

import logging

from mercat.billing.v1 import billing_pb2
from mercat.inference.v1 import allowances_pb2, allowances_pb2_grpc
from mercat.marketplace.v1 import marketplace_pb2

from services.common import pricing
from services.common.errors import MercatError
from services.common.rpc.channels import InternalChannel

log = logging.getLogger(__name__)
_PATIENCE = 2.0  # seconds that a listing waits for it


class Allowances:
    """`inference` reaches the workers; None: there is nobody to ask."""

    def __init__(self, inference: InternalChannel | None) -> None:
        self._workers = allowances_pb2_grpc.AllowanceServiceStub(inference) if inference else None

    async def of(self, listing: marketplace_pb2.Listing, org_id: str) -> list[billing_pb2.Allowance]:
        """Those of a model, for an organisation with what is left of them; an empty one is nobody."""
        declared = [
            billing_pb2.Allowance(meter=c.meter, free_units=c.free_units)
            for c in pricing.read(listing.price).allowances
        ]
        if not declared or not org_id or self._workers is None:
            return declared
        request = allowances_pb2.GetAllowancesRequest(model=listing.model.model, org_id=org_id)
        try:
            return list((await self._workers.GetAllowances(request, timeout=_PATIENCE)).allowances)
        except MercatError as e:
            log.warning("what is left of allowances of %s is not known: %s", listing.model.model_id, e)
            return declared
