"""Writes down what a card says that a model was made from."""

from mercat.registry.v1 import card_pb2

from services.common.db import Connection
from services.common.errors import InvalidFields
from services.registry import references
from services.registry.lineage.store import BASE, DATASET, LineageStore
from services.registry.store import Row, Store


async def note(
    connection: Connection, store: Store, lineage: LineageStore, model: Row, version: str, said: card_pb2.CardMetadata
) -> None:
    """`version`: whose card it is; empty: the model's own."""
    edges = [(BASE, name, await _base(connection, store, model["org_id"], name)) for name in said.base_models]
    edges += [(DATASET, name, "") for name in said.datasets]
    await lineage.add_lineage(connection, model["id"], version, edges)


async def _base(connection: Connection, store: Store, org_id: str, name: str) -> str:
    """The id of a model that the organisation may know of; empty where the name is one of somewhere else."""
    try:
        reference = references.parse(name)
    except InvalidFields:
        return ""
    found = await store.get_model(connection, reference.publisher, reference.name)
    return found["id"] if found and (found["published_at"] or found["org_id"] == org_id) else ""
