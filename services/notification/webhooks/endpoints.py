"""Endpoints of webhooks, for their organisations."""

from collections.abc import Sequence
from datetime import timedelta

from mercat.notification.v1 import webhooks_pb2 as w

from services.common import audit, etags, ids, pages
from services.common.clock import Clock
from services.common.db import Connection, Database
from services.common.egress import EgressRefused, Rules
from services.common.errors import EtagMismatch, FailedPrecondition, InvalidFields, ResourceExhausted, Violation
from services.common.rpc.context import Context, caller
from services.common.secrets.keyring import Keyring
from services.notification.webhooks import signing
from services.notification.webhooks.access import check_types, found
from services.notification.webhooks.rows import endpoint_of
from services.notification.webhooks.store import Row, WebhookStore

_MOST = 50  # endpoints of an organisation
_OVERLAP, _LONGEST = timedelta(hours=24), timedelta(days=30)


class Endpoints:
    """The calls about endpoints themselves."""

    def __init__(
        self, database: Database, store: WebhookStore, keyring: Keyring, rules: Rules, clock: Clock
    ) -> None:  # fmt: skip
        self._database = database
        self._store = store
        self._keyring = keyring
        self._rules = rules
        self._clock = clock

    async def CreateWebhookEndpoint(
        self, request: w.CreateWebhookEndpointRequest, context: Context
    ) -> w.CreateWebhookEndpointResponse:
        org_id, endpoint_id, secret = caller().org_id, ids.new("whe"), signing.new_secret()
        self._check_url(request.url)
        check_types(request.event_types)
        async with self._database.transaction() as connection:
            if await self._store.count_endpoints(connection, org_id) >= _MOST:
                raise ResourceExhausted(f"an organisation may have {_MOST} endpoints", reason="TOO_MANY_WEBHOOKS")
            row = await self._store.add_endpoint(
                connection, id=endpoint_id, org_id=org_id, url=request.url, description=request.description,
                event_types=_sorted(request.event_types), now=self._clock.now(),
                sealed_secret=await self._keyring.seal(connection, org_id, secret, endpoint_id),
            )  # fmt: skip
            made = endpoint_of(row)
            audit.about("webhook_endpoint", endpoint_id)
            audit.changed(after=made)
        return w.CreateWebhookEndpointResponse(endpoint=made, secret=signing.shown(secret))

    async def GetWebhookEndpoint(
        self, request: w.GetWebhookEndpointRequest, context: Context
    ) -> w.GetWebhookEndpointResponse:
        async with self._database.connection() as connection:
            row = await self._store.get_endpoint(connection, request.endpoint_id, caller().org_id)
        return w.GetWebhookEndpointResponse(endpoint=endpoint_of(found(row)))

    async def ListWebhookEndpoints(
        self, request: w.ListWebhookEndpointsRequest, context: Context
    ) -> w.ListWebhookEndpointsResponse:
        key, most = pages.decode(request.page_token, str), pages.size(request.page_size)
        async with self._database.connection() as connection:
            rows = await self._store.list_endpoints(
                connection, caller().org_id, str(key[0]) if key else None, most + 1
            )  # fmt: skip
        token = pages.encode([rows[most - 1]["id"]]) if len(rows) > most else ""
        return w.ListWebhookEndpointsResponse(endpoints=map(endpoint_of, rows[:most]), next_page_token=token)

    async def UpdateWebhookEndpoint(
        self, request: w.UpdateWebhookEndpointRequest, context: Context
    ) -> w.UpdateWebhookEndpointResponse:
        if request.all_event_types and request.event_types:
            raise InvalidFields(violations=[Violation("all_event_types", "not with event_types")])
        wanted = etags.revision(request.etag, "endpoint")
        if request.HasField("url"):
            self._check_url(request.url)
        async with self._database.transaction() as connection:
            row = await self._lock(connection, request.endpoint_id)
            if wanted and wanted != row["revision"]:
                raise EtagMismatch("the endpoint was changed meanwhile; read it again")
            types = row["event_types"]
            if request.all_event_types or request.event_types:
                check_types(request.event_types)
                types = _sorted(request.event_types)
            enabled = request.enabled if request.HasField("enabled") else row["enabled"]
            reason = row["disabled_reason"] or "by_hand"  # why it was disabled first
            changed = await self._store.update_endpoint(
                connection, row["id"], event_types=types, enabled=enabled, now=self._clock.now(),
                url=request.url if request.HasField("url") else row["url"],
                description=request.description if request.HasField("description") else row["description"],
                disabled_reason="" if enabled else reason,
                fresh=(request.HasField("enabled") and enabled) or request.url not in ("", row["url"]),
            )  # fmt: skip
            audit.changed(endpoint_of(row), endpoint_of(changed))
        return w.UpdateWebhookEndpointResponse(endpoint=endpoint_of(changed))

    async def DeleteWebhookEndpoint(
        self, request: w.DeleteWebhookEndpointRequest, context: Context
    ) -> w.DeleteWebhookEndpointResponse:
        audit.about("webhook_endpoint", request.endpoint_id)
        async with self._database.transaction() as connection:
            row = found(await self._store.delete_endpoint(connection, request.endpoint_id, caller().org_id))
            audit.changed(before=endpoint_of(row))
        return w.DeleteWebhookEndpointResponse()

    async def RotateWebhookSecret(
        self, request: w.RotateWebhookSecretRequest, context: Context
    ) -> w.RotateWebhookSecretResponse:
        overlap, secret = _overlap(request), signing.new_secret()
        async with self._database.transaction() as connection:
            row, now = await self._lock(connection, request.endpoint_id), self._clock.now()
            until = row["previous_until"]
            if overlap and until is not None and until > now:
                raise FailedPrecondition(
                    f"the secret before the last rotation signs until {until:%Y-%m-%d %H:%M} UTC; "
                    "rotate without overlap to end all before",
                    reason="WEBHOOK_SECRET_OVERLAPS",
                )
            sealed = await self._keyring.seal(connection, row["org_id"], secret, row["id"])
            changed = await self._store.set_secret(
                connection, row["id"], sealed, row["sealed_secret"] if overlap else None,
                now + overlap if overlap else None, now,
            )  # fmt: skip
            audit.changed(endpoint_of(row), endpoint_of(changed))
        return w.RotateWebhookSecretResponse(endpoint=endpoint_of(changed), secret=signing.shown(secret))

    async def _lock(self, connection: Connection, endpoint_id: str) -> Row:
        """An endpoint that the caller may change: whoever could send it elsewhere hears what it does. Raises
        EndpointNotFound, PermissionDenied."""
        audit.about("webhook_endpoint", endpoint_id)
        row = found(await self._store.get_endpoint(connection, endpoint_id, caller().org_id, lock=True))
        check_types(row["event_types"])
        return row

    def _check_url(self, url: str) -> None:
        try:
            self._rules.url(url)
        except EgressRefused as e:
            raise InvalidFields(violations=[Violation("url", str(e))]) from None


def _sorted(types: Sequence[str]) -> list[str]:
    return sorted(set(types))


def _overlap(request: w.RotateWebhookSecretRequest) -> timedelta:
    """Raises InvalidFields."""
    if not request.HasField("overlap"):
        return _OVERLAP
    try:
        overlap = request.overlap.ToTimedelta()
    except (ValueError, OverflowError):
        overlap = _LONGEST * 2
    if not timedelta(0) <= overlap <= _LONGEST:
        raise InvalidFields(violations=[Violation("overlap", f"must be between 0 and {_LONGEST.days} days")])
    return overlap
