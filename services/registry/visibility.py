"""Who may know of a model: the one place where that is decided. Who may not is told what they are told of one that does
not exist."""

from mercat.auth.v1 import auth_pb2
from mercat.registry.v1 import visibility_pb2

from services.common.db import Connection
from services.common.errors import ModelNotFound
from services.common.rpc.context import caller, current
from services.registry import references
from services.registry.store import Row, Store

PUBLIC = visibility_pb2.VISIBILITY_PUBLIC
PRIVATE = visibility_pb2.VISIBILITY_PRIVATE
GATED = visibility_pb2.VISIBILITY_GATED


def listed(model: Row) -> bool:
    """Whether everybody may know of it."""
    return model["published_at"] is not None and model["visibility"] != PRIVATE


def kept(model: Row) -> dict[str, str]:
    """What goes with an error about a model that an organisation keeps to itself: whom the error is for. Who asks for
    others must tell them MODEL_NOT_FOUND instead."""
    return {"private_to": model["org_id"]} if model["visibility"] == PRIVATE else {}


def sees_all(model: Row) -> bool:
    """Whether the caller may see what others may not: the owner and platform admins."""
    principal = current().principal
    return bool(principal.org_id == model["org_id"] or principal.role == auth_pb2.ROLE_ADMIN)


def known(model: Row) -> bool:
    """Whether the caller may know of it."""
    return listed(model) or sees_all(model)


async def find_known(store: Store, connection: Connection, name: str) -> Row:
    """The model. Raises ModelNotFound when there is none that the caller may know of."""
    reference = references.parse_model(name)
    model = await store.get_model(connection, reference.publisher, reference.name)
    if model is None or not known(model):
        raise ModelNotFound(f"there is no model {reference.model}")
    return model


async def find_own(store: Store, connection: Connection, name: str) -> Row:
    """The caller's own model. Raises ModelNotFound for everybody else's too."""
    reference = references.parse_model(name)
    model = await store.get_model(connection, reference.publisher, reference.name)
    if model is None or model["org_id"] != caller().org_id:
        raise ModelNotFound(f"you have no model {reference.model}")
    return model
