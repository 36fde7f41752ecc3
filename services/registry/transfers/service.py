"""Serves `mercat.registry.v1.TransferService`. The move is one transaction; others are told by ModelMoved."""

from datetime import timedelta

import asyncpg
from mercat.auth.v1 import auth_pb2, auth_pb2_grpc
from mercat.event.v1 import event_pb2
from mercat.registry.v1 import registry_pb2, transfer_pb2, transfer_pb2_grpc

from services.common import audit, ids, outbox, pages
from services.common.db import Connection
from services.common.errors import CredentialInvalid, InvalidFields, NotFound, Violation
from services.common.rpc.context import Context, caller
from services.common.service import Deps
from services.registry import visibility
from services.registry.addresses import Addresses, taken
from services.registry.rows import model_of
from services.registry.store import Row, Store
from services.registry.transfers.store import TransferStore

_LIFETIME = timedelta(days=7)
_ACCEPTING = frozenset({"models:write", "organisation:write"})  # as AcceptModelTransfer's policy has it


class TransferNotFound(NotFound, reason="TRANSFER_NOT_FOUND"): ...


class TransferServicer(transfer_pb2_grpc.TransferServiceServicer):
    """A model's row is locked before its offers, whatever is done with them."""

    def __init__(self, deps: Deps, store: Store, transfers: TransferStore, addresses: Addresses) -> None:
        self._database = deps.database
        self._clock = deps.clock
        self._auth = auth_pb2_grpc.PrincipalServiceStub(deps.control)
        self._store = store
        self._transfers = transfers
        self._addresses = addresses

    async def TransferModel(
        self, request: transfer_pb2.TransferModelRequest, context: Context
    ) -> transfer_pb2.TransferModelResponse:
        principal = caller()
        async with self._database.connection() as connection:
            await self._own(connection, request.model)
        found = await self._auth.FindOrganisation(auth_pb2.FindOrganisationRequest(handle=request.organisation))
        if found.org_id == principal.org_id:
            raise InvalidFields(violations=[Violation("organisation", "has the model already")])
        at_once = await self._may_accept(principal, found.org_id)
        if request.name and not at_once:
            raise InvalidFields(violations=[Violation("name", "is chosen by whoever accepts the model there")])
        transfer_id, now = ids.new("mtr"), self._clock.now()
        async with self._database.transaction() as connection:
            model = await self._own(connection, request.model)
            await self._store.touch_model(connection, model["id"], now)
            model = await self._own(connection, request.model)  # it may have gone while this waited
            audit.about("model", model["id"])
            row = await self._transfers.add_transfer(
                connection, transfer_id=transfer_id, model=model, to_org_id=found.org_id,
                organisation=request.organisation, user_id=principal.user_id, now=now, expires_at=now + _LIFETIME,
            )  # fmt: skip
            if at_once:
                moved = await self._move(connection, model, row, request.name)
                await audit.also(connection, found.org_id)
                made = _transfer({**row, "publisher": moved["publisher"], "name": moved["name"]}, accepted=True)
            else:
                made = _transfer({**row, "publisher": model["publisher"], "name": model["name"]})
        return transfer_pb2.TransferModelResponse(transfer=made)

    async def _own(self, connection: Connection, name: str) -> Row:
        """Raises ModelNotFound for what is not the caller's."""
        return await visibility.find_own(self._store, connection, name)

    async def _may_accept(self, principal: auth_pb2.Principal, org_id: str) -> bool:
        """Whether who asks may accept in the other organisation too. A key, and a session that is held to less, is for
        its own organisation alone."""
        if principal.key_id or not _ACCEPTING.issubset(principal.scopes):
            return False
        asked = auth_pb2.GetPrincipalRequest(user_id=principal.user_id, org_id=org_id)
        try:
            there = (await self._auth.GetPrincipal(asked)).principal
        except CredentialInvalid:  # no member
            return False
        return _ACCEPTING.issubset(there.scopes) and there.role >= auth_pb2.ROLE_PUBLISHER

    async def _move(self, connection: Connection, model: Row, transfer: Row, name: str) -> Row:
        """The model as it is then. Raises ModelExists, ModelNameTooSimilar, ModelNameQuarantined."""
        name = name or model["name"]
        before = f"{model['publisher']}/{model['name']}"
        try:
            await self._transfers.move(
                connection, model, transfer["to_org_id"], transfer["organisation"], name, self._clock.now()
            )
        except asyncpg.UniqueViolationError as e:
            raise taken(e, f"{transfer['organisation']} has", name) from None
        await self._addresses.take(connection, transfer["organisation"], name, model["id"])
        moved = await self._store.get_model(connection, transfer["organisation"], name)
        assert moved is not None
        event = event_pb2.ModelMoved(
            model_id=model["id"], from_model=before, to_model=f"{moved['publisher']}/{moved['name']}",
            from_org_id=model["org_id"], to_org_id=moved["org_id"],
            digests=await self._transfers.digests_of(connection, model["id"]),
        )  # fmt: skip
        await outbox.add(connection, event)
        audit.changed(_address(model), _address(moved))
        return moved

    async def ListModelTransfers(
        self, request: transfer_pb2.ListModelTransfersRequest, context: Context
    ) -> transfer_pb2.ListModelTransfersResponse:
        key, most = pages.decode(request.page_token, str), pages.size(request.page_size)
        async with self._database.connection() as connection:
            rows = await self._transfers.list_transfers(
                connection, caller().org_id, str(key[0]) if key else "", self._clock.now(), most + 1
            )
        token = pages.encode([rows[most - 1]["id"]]) if len(rows) > most else ""
        return transfer_pb2.ListModelTransfersResponse(
            transfers=[_transfer(r) for r in rows[:most]], next_page_token=token
        )

    async def AcceptModelTransfer(
        self, request: transfer_pb2.AcceptModelTransferRequest, context: Context
    ) -> transfer_pb2.AcceptModelTransferResponse:
        async with self._database.transaction() as connection:
            transfer = await self._open(connection, request.transfer_id, "to_org_id")
            await self._store.touch_model(connection, transfer["model_id"], self._clock.now())
            transfer = await self._open(connection, request.transfer_id, "to_org_id")
            audit.about("model", transfer["model_id"])
            model = await self._store.get_model(connection, transfer["publisher"], transfer["name"])
            assert model is not None
            moved = await self._move(connection, model, transfer, request.name)
            await audit.also(connection, transfer["from_org_id"])
        return transfer_pb2.AcceptModelTransferResponse(model=model_of(moved))

    async def CancelModelTransfer(
        self, request: transfer_pb2.CancelModelTransferRequest, context: Context
    ) -> transfer_pb2.CancelModelTransferResponse:
        async with self._database.transaction() as connection:
            transfer = await self._open(connection, request.transfer_id, "from_org_id", "to_org_id")
            audit.about("model", transfer["model_id"])
            if not await self._transfers.end_transfer(connection, request.transfer_id, self._clock.now()):
                raise _none()
            if transfer["from_org_id"] != caller().org_id:
                await audit.also(connection, transfer["from_org_id"])
        return transfer_pb2.CancelModelTransferResponse()

    async def _open(self, connection: Connection, transfer_id: str, *sides: str) -> Row:
        """An open offer with the caller's organisation on one of these sides. Raises TransferNotFound."""
        row = await self._transfers.get_transfer(connection, transfer_id, self._clock.now())
        if row is None or caller().org_id not in [row[side] for side in sides]:
            raise _none()
        return row


def _none() -> TransferNotFound:
    return TransferNotFound("there is no such open offer of a model; see `mercat models transfers`")


def _address(model: Row) -> registry_pb2.Model:
    return registry_pb2.Model(
        model_id=model["id"], model=f"{model['publisher']}/{model['name']}", org_id=model["org_id"]
    )


def _transfer(row: Row, *, accepted: bool = False) -> transfer_pb2.ModelTransfer:
    made = transfer_pb2.ModelTransfer(
        transfer_id=row["id"], model_id=row["model_id"], model=f"{row['publisher']}/{row['name']}",
        from_org_id=row["from_org_id"], to_org_id=row["to_org_id"], organisation=row["organisation"],
        user_id=row["user_id"], accepted=accepted,
    )  # fmt: skip
    made.created_at.FromDatetime(row["created_at"])
    made.expires_at.FromDatetime(row["expires_at"])
    return made
