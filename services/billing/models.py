"""Models as money knows them: whose they are, asked of the registry. Who may not know of a model hears what they hear
of one that is not."""

from mercat.registry.v1 import registry_pb2, registry_pb2_grpc

from services.common.errors import ModelNotFound
from services.common.rpc.channels import InternalChannel
from services.common.rpc.context import caller, current


class Models:
    """The one place where billing asks whether a model is the caller's."""

    def __init__(self, control: InternalChannel) -> None:
        self._registry = registry_pb2_grpc.DeploymentServiceStub(control)

    async def own(self, model: str) -> registry_pb2.ResolveOwnerResponse:
        """A model of the caller's organisation. Raises ModelNotFound."""
        owner = await self._owner(model)
        if owner.org_id != caller().org_id:
            raise _none(model)
        return owner

    async def known(self, model: str) -> registry_pb2.ResolveOwnerResponse:
        """A model that is published, or of the caller's organisation. Raises ModelNotFound."""
        owner = await self._owner(model)
        if not owner.published and owner.org_id != current().principal.org_id:
            raise _none(model)
        return owner

    async def _owner(self, model: str) -> registry_pb2.ResolveOwnerResponse:
        try:
            owner: registry_pb2.ResolveOwnerResponse = await self._registry.ResolveOwner(
                registry_pb2.ResolveOwnerRequest(model=model)
            )
        except ModelNotFound:
            raise _none(model) from None
        return owner


def _none(model: str) -> ModelNotFound:
    return ModelNotFound(f"there is no model {model}")
