"""Serves `mercat.registry.v1.LineageService`."""

from collections.abc import Awaitable, Callable, Iterable

from mercat.auth.v1 import auth_pb2
from mercat.registry.v1 import lineage_pb2 as pb
from mercat.registry.v1 import lineage_pb2_grpc, registry_pb2

from services.common.db import Database
from services.common.rpc.context import Context, current
from services.registry.lineage.store import DATASET, LineageStore
from services.registry.service import RegistryServicer
from services.registry.store import Row

_DEPTH, _MOST = 3, 500  # steps where none are asked for; edges each way
Key = tuple[str, int, str]


class LineageServicer(lineage_pb2_grpc.LineageServiceServicer):
    """Walks the edges breadth first, a query a step."""

    def __init__(self, database: Database, lineage: LineageStore, registry: RegistryServicer) -> None:
        self._database = database
        self._lineage = lineage
        self._registry = registry

    async def GetLineage(self, request: pb.GetLineageRequest, context: Context) -> pb.GetLineageResponse:
        asked = registry_pb2.GetModelRequest(model=request.model)
        model = (await self._registry.GetModel(asked, context)).model  # or MODEL_NOT_FOUND
        principal = current().principal
        everything = principal.role == auth_pb2.ROLE_ADMIN
        answer = pb.GetLineageResponse(model=model.model)
        edges: dict[Key, pb.LineageEdge] = {}
        async with self._database.connection() as connection:
            for ask, end in ((self._lineage.made_from, "base_model_id"), (self._lineage.made_of, "model_id")):

                async def step(models: Iterable[str], most: int, ask=ask) -> list[Row]:  # type: ignore[no-untyped-def]
                    rows: list[Row] = await ask(
                        connection, sorted(models), principal.org_id, everything=everything, most=most
                    )
                    return rows

                answer.truncated |= await _walk(step, model.model_id, end, request.depth or _DEPTH, edges)
        answer.edges.extend(edges.values())
        return answer


async def _walk(
    step: Callable[[Iterable[str], int], Awaitable[list[Row]]], start: str, end: str, depth: int,
    edges: dict[Key, pb.LineageEdge],
) -> bool:  # fmt: skip
    """Adds the edges of one direction; answers whether there are more."""
    seen, frontier, left = {start}, {start}, _MOST
    for _ in range(depth):
        rows = await step(frontier, left + 1)
        for row in rows[:left]:
            _add(row, edges)
        if len(rows) > left:
            return True
        left -= len(rows)
        # A base that the caller may not see has an id here and no address: there the walk ends.
        frontier = {row[end] for row in rows if row[end] and row["base"]} - seen
        seen |= frontier
        if not frontier:
            return False
    return bool(await step(frontier, 1))


def _add(row: Row, edges: dict[Key, pb.LineageEdge]) -> None:
    kind = (
        pb.LINEAGE_KIND_DATASET if row["kind"] == DATASET
        else pb.LINEAGE_KIND_MODEL if row["base"] else pb.LINEAGE_KIND_ELSEWHERE
    )  # fmt: skip
    origin = pb.LineageNode(name=row["base"] or row["name"], kind=kind)
    known = edges.get((row["made"], kind, origin.name))
    if known is None:
        versions = [row["version"]] if row["version"] else []
        edges[row["made"], kind, origin.name] = pb.LineageEdge(made=row["made"], origin=origin, versions=versions)
    elif not row["version"]:
        del known.versions[:]
    elif known.versions and row["version"] not in known.versions:
        known.versions.append(row["version"])
