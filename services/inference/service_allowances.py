"""What organisations have left of free allowances, for the storefront."""

from mercat.billing.v1 import billing_pb2
from mercat.inference.v1 import allowances_pb2, allowances_pb2_grpc

from services.common.rpc.context import Context, current
from services.inference.hotpath import HotPath
from services.inference.positions import key_of


class AllowanceServicer(allowances_pb2_grpc.AllowanceServiceServicer):
    """Serves `mercat.inference.v1.AllowanceService`."""

    def __init__(self, path: HotPath) -> None:
        self._path = path

    async def GetAllowances(
        self, request: allowances_pb2.GetAllowancesRequest, context: Context
    ) -> allowances_pb2.GetAllowancesResponse:
        deployment = await self._path.deployments.get(request.model, None)
        response = allowances_pb2.GetAllowancesResponse()
        if not (free := deployment.price.allowances):
            return response
        key = key_of(request.org_id, deployment.proto.model_id, current().arrived_ms)
        nothing = dict.fromkeys((c.meter for c in free), 0)
        used = await self._path.positions.take(key, nothing, deployment.price_since)
        for c in free:
            allowance = billing_pb2.Allowance(
                meter=c.meter, free_units=c.free_units, used_units=used[c.meter], left_units=c.left(used[c.meter])
            )
            allowance.resets_at.FromDatetime(key.span()[1])
            response.allowances.append(allowance)
        return response
