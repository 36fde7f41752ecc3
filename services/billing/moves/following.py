"""Follows ModelMoved."""

from google.protobuf.message import Message
from mercat.event.v1 import event_pb2
from mercat.registry.v1 import registry_pb2, registry_pb2_grpc

from services.billing.store import Store
from services.common.db import Connection, load_queries
from services.common.errors import ModelNotFound
from services.common.rpc.channels import InternalChannel


class Moves:
    """Gives subscriptions to a model, its offer and its discounts the owner that it has now: what is paid for them from
    then on is the new owner's. It asks who that is, for events may come twice, late and out of order. Prices keep the
    address of their time, as all that was charged by."""

    def __init__(self, store: Store, control: InternalChannel) -> None:
        self._store = store
        self._registry = registry_pb2_grpc.DeploymentServiceStub(control)
        self._q = load_queries("services.billing.moves")

    async def follow(self, connection: Connection, event: Message) -> None:
        assert isinstance(event, event_pb2.ModelMoved)
        await self._q.lock_moves(connection, model_id=event.model_id)
        try:
            owner = await self._registry.ResolveOwner(registry_pb2.ResolveOwnerRequest(model=event.to_model))
        except ModelNotFound:
            return
        if owner.model_id != event.model_id:
            return  # it moved on, and another model has that address: a later event says where it is
        now = {"model_id": owner.model_id, "model": owner.model}
        subscribers = [r["org_id"] async for r in self._q.subscribers(connection, model_id=owner.model_id)]
        # A period that ends in this moment is paid to the one owner or the other.
        await self._store.lock_or_open_wallets(connection, subscribers)
        await self._q.move_subscriptions(connection, **now, org_id=owner.org_id)
        await self._q.move_offer(connection, **now, org_id=owner.org_id)
        await self._q.drop_discounts(connection, model_id=owner.model_id, org_id=owner.org_id)
        await self._q.move_discounts(connection, **now, org_id=owner.org_id)
        await self._q.rename_due_prices(connection, **now)
        await self._q.rename_budgets(connection, **now)
