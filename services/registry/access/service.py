"""Serves `mercat.registry.v1.AccessService`."""

from mercat.event.v1 import event_pb2
from mercat.registry.v1 import access_pb2, access_pb2_grpc

from services.common import audit, ids, outbox, pages
from services.common.db import Connection
from services.common.errors import (
    FailedPrecondition,
    InvalidFields,
    NotFound,
    ResourceExhausted,
    Violation,
)
from services.common.rpc.context import Context, caller, current
from services.common.service import Deps
from services.registry import visibility
from services.registry.access import states
from services.registry.access.rows import access_of, gate_of
from services.registry.access.store import AccessStore
from services.registry.rows import model_of
from services.registry.store import Row, Store

_NAMED = 20  # versions that an error names
MOST = 10_000  # organisations that have access to a model: every worker knows them all


class ModelNotGated(FailedPrecondition, reason="MODEL_NOT_GATED"):
    """Its calls need no access, or nobody but its own organisation has any."""


class ModelUnreviewed(FailedPrecondition, reason="MODEL_UNREVIEWED"):
    """Versions of a private model were published and not reviewed; the metadata names them."""


class TermsNotAccepted(FailedPrecondition, reason="TERMS_NOT_ACCEPTED"):
    """The request does not name the terms as they are now; the metadata does."""


class AccessNotFound(NotFound, reason="ACCESS_NOT_FOUND"):
    """The organisation has never asked for access to the model."""


class TooManyAccesses(ResourceExhausted, reason="TOO_MANY_ACCESSES"): ...


class AccessServicer(access_pb2_grpc.AccessServiceServicer):
    """Visibility is told as ModelChanged, on which marketplace and workers look again; accesses as ModelAccessChanged,
    on which workers do."""

    def __init__(self, deps: Deps, store: Store, accesses: AccessStore) -> None:
        self._database = deps.database
        self._clock = deps.clock
        self._store = store
        self._accesses = accesses

    async def SetModelVisibility(
        self, request: access_pb2.SetModelVisibilityRequest, context: Context
    ) -> access_pb2.SetModelVisibilityResponse:
        gated, now = request.visibility == visibility.GATED, self._clock.now()
        if request.HasField("gate") and not gated:
            raise InvalidFields(violations=[Violation("gate", "is of a gated model alone")])
        async with self._database.transaction() as connection:
            before = await self._own(connection, request.model)
            audit.about("model", before["id"])
            await self._store.set_visibility(connection, before["id"], request.visibility, now)
            if (
                request.visibility != visibility.PRIVATE
            ):  # read after that has locked the model: nothing is published now
                await self._check_reviewed(connection, before)
            if request.HasField("gate"):
                gate = request.gate
                await self._accesses.put_gate(
                    connection, before["id"], gate.approval, digest=states.digest_of(gate), version=gate.terms_version,
                    url=gate.terms_url, text=gate.terms, now=now,
                )  # fmt: skip
            elif gated and await self._accesses.get_gate(connection, before["id"]) is None:
                raise InvalidFields(violations=[Violation("gate", "is needed: say how access is had")])
            model = await self._own(connection, request.model)
            audit.changed(model_of(before), model_of(model))
            name, published = f"{model['publisher']}/{model['name']}", bool(model["latest_version"])
            changed = event_pb2.ModelChanged(model_id=model["id"], model=name, published=published)
            await outbox.add(connection, changed)
        return access_pb2.SetModelVisibilityResponse(model=model_of(model))

    async def _check_reviewed(self, connection: Connection, model: Row) -> None:
        """Raises ModelUnreviewed, which says what to do."""
        versions = await self._store.list_unreviewed(connection, model["id"], _NAMED)
        if versions:
            name = f"{model['publisher']}/{model['name']}"
            problem = Violation("visibility", "shows versions that have not been reviewed: submit or delete them first")
            raise ModelUnreviewed(
                f"not reviewed yet: {', '.join(versions)}; `mercat models submit {name}@{versions[0]}` asks for it, and"
                " it stays in service meanwhile",
                metadata={"versions": " ".join(versions)}, violations=[problem],
            )  # fmt: skip

    async def GetModelAccess(
        self, request: access_pb2.GetModelAccessRequest, context: Context
    ) -> access_pb2.GetModelAccessResponse:
        async with self._database.transaction() as connection:
            model = await self._known(connection, request.model)
            response = access_pb2.GetModelAccessResponse(visibility=model["visibility"])
            gate = await self._accesses.get_gate(connection, model["id"])
            if gate is not None and model["visibility"] == visibility.GATED:
                response.gate.CopyFrom(gate_of(gate))
            if org_id := current().principal.org_id:
                response.access.CopyFrom(await self._access(connection, model, org_id))
        return response

    async def RequestModelAccess(
        self, request: access_pb2.RequestModelAccessRequest, context: Context
    ) -> access_pb2.RequestModelAccessResponse:
        who, now = caller(), self._clock.now()
        async with self._database.transaction() as connection:
            model = await self._known(connection, request.model)
            audit.about("model", model["id"])
            gate = await self._accesses.get_gate(connection, model["id"])
            if gate is None or model["visibility"] != visibility.GATED or model["org_id"] == who.org_id:
                raise ModelNotGated(f"you need no access to {request.model}: call it")
            if request.terms_digest != gate["terms_digest"]:
                raise TermsNotAccepted(
                    f"access to {request.model} needs its terms accepted: read them with `mercat access show"
                    f" {request.model}`, then `mercat access request {request.model} --accept`",
                    metadata={"terms_digest": gate["terms_digest"], "terms_version": gate["version"] or ""},
                )
            new = await self._accesses.add_access(connection, ids.new("mga"), model["id"], who.org_id, who.handle, now)
            row = await self._accesses.lock_access(connection, model["id"], who.org_id)
            assert row is not None
            if gate["terms_digest"]:
                await self._accesses.accept_terms(
                    connection, model["id"], who.org_id, who.user_id, gate["terms_digest"], now
                )
            state = states.asked(row["state"], gate["approval"], new=new)
            if new or state != row["state"] or state == states.REQUESTED:
                if state == states.GRANTED:
                    await self._room(connection, model["id"])
                await self._accesses.ask_access(connection, row["id"], state, request.message, who.user_id, now)
            made = await self._access(connection, model, who.org_id)
            if state == states.REQUESTED:
                news = new or row["state"] != state  # or asking again and again would write to them each time
                await self._tell(connection, model, made, model["org_id"], news=news)
            else:
                await self._tell(connection, model, made, who.org_id)
            await audit.also(connection, model["org_id"])
        return access_pb2.RequestModelAccessResponse(access=made)

    async def ListModelAccesses(
        self, request: access_pb2.ListModelAccessesRequest, context: Context
    ) -> access_pb2.ListModelAccessesResponse:
        key, most, who = pages.decode(request.page_token, str), pages.size(request.page_size), caller()
        async with self._database.connection() as connection:
            model = await self._own(connection, request.model) if request.model else None
            rows = await self._accesses.list_accesses(
                connection, model_id=model["id"] if model else "", org_id="" if model else who.org_id,
                viewer=who.org_id, state=request.state, before=str(key[0]) if key else "", most=most + 1,
            )  # fmt: skip
        token = pages.encode([rows[most - 1]["id"]]) if len(rows) > most else ""
        return access_pb2.ListModelAccessesResponse(accesses=map(access_of, rows[:most]), next_page_token=token)

    async def ApproveModelAccess(
        self, request: access_pb2.ApproveModelAccessRequest, context: Context
    ) -> access_pb2.ApproveModelAccessResponse:
        access = await self._decide(request.model, request.organisation, states.GRANTED)
        return access_pb2.ApproveModelAccessResponse(access=access)

    async def DenyModelAccess(
        self, request: access_pb2.DenyModelAccessRequest, context: Context
    ) -> access_pb2.DenyModelAccessResponse:
        access = await self._decide(request.model, request.organisation, states.DENIED, request.reason)
        return access_pb2.DenyModelAccessResponse(access=access)

    async def RevokeModelAccess(
        self, request: access_pb2.RevokeModelAccessRequest, context: Context
    ) -> access_pb2.RevokeModelAccessResponse:
        access = await self._decide(request.model, request.organisation, states.REVOKED, request.reason)
        return access_pb2.RevokeModelAccessResponse(access=access)

    async def _decide(self, name: str, organisation: str, to: int, reason: str = "") -> access_pb2.ModelAccess:
        """Raises ModelNotFound, AccessNotFound, AccessState, TooManyAccesses."""
        async with self._database.transaction() as connection:
            model = await self._own(connection, name)
            audit.about("model", model["id"])
            org_id = await self._accesses.find_access(connection, model["id"], organisation)
            row = await self._accesses.lock_access(connection, model["id"], org_id) if org_id else None
            if row is None:
                raise AccessNotFound(f"{organisation} has not asked for access to {name}")
            state = states.decided(row["state"], to)
            if state == states.GRANTED:
                await self._room(connection, model["id"])
            await self._accesses.decide_access(connection, row["id"], state, reason, self._clock.now())
            made = await self._access(connection, model, row["org_id"])
            await self._tell(
                connection, model, made, row["org_id"], news=state != row["state"], requested_by=row["requested_by"]
            )
            await audit.also(connection, row["org_id"])
        return made

    async def _room(self, connection: Connection, model_id: str) -> None:
        if await self._accesses.count_granted(connection, model_id) >= MOST:
            raise TooManyAccesses(f"{MOST:,} organisations have access to the model, and no more can; revoke one")

    async def _access(self, connection: Connection, model: Row, org_id: str) -> access_pb2.ModelAccess:
        """What an organisation has of a model that the caller may know of."""
        rows = await self._accesses.list_accesses(
            connection, model_id=model["id"], org_id=org_id, viewer=model["org_id"], most=1
        )
        if rows:
            made = access_of(rows[0])
        else:
            made = access_pb2.ModelAccess(model=f"{model['publisher']}/{model['name']}", org_id=org_id)
        made.may_call |= org_id == model["org_id"] or model["visibility"] == visibility.PUBLIC
        return made

    async def _tell(
        self, connection: Connection, model: Row, access: access_pb2.ModelAccess, org_id: str, *, news: bool = False,
        requested_by: str = "",
    ) -> None:  # fmt: skip
        event = event_pb2.ModelAccessChanged(
            model_id=model["id"], model=access.model, org_id=org_id, organisation=access.organisation,
            state=states.name_of(access.state), message=access.message, reason=access.reason, news=news,
            requested_by=requested_by,
        )  # fmt: skip
        await outbox.add(connection, event)

    async def _known(self, connection: Connection, name: str) -> Row:
        """Raises ModelNotFound for what the caller may not know of."""
        return await visibility.find_known(self._store, connection, name)

    async def _own(self, connection: Connection, name: str) -> Row:
        """Raises ModelNotFound for what is not the caller's."""
        return await visibility.find_own(self._store, connection, name)
