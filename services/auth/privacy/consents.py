"""What people agree to: which text, when. Serves `mercat.auth.v1.ConsentService`."""

from collections.abc import Mapping
from datetime import datetime

from mercat.auth.v1 import auth_pb2, privacy_pb2, privacy_pb2_grpc

from services.auth.privacy.store import PrivacyStore, Row
from services.auth.settings import AuthSettings
from services.common import audit, ids
from services.common.clock import Clock
from services.common.db import Connection, Database
from services.common.errors import InvalidFields, Violation
from services.common.rpc.context import Context, caller

Kind = privacy_pb2.Consent.Kind
TERMS, PRIVACY, MARKETING = (
    privacy_pb2.Consent.KIND_TERMS, privacy_pb2.Consent.KIND_PRIVACY, privacy_pb2.Consent.KIND_MARKETING_MAIL
)  # fmt: skip


class Consents:
    """The rules. Without a version in the settings there is no text to agree to, and nobody is asked."""

    def __init__(self, store: PrivacyStore, settings: AuthSettings, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self.versions: dict[int, str] = {
            TERMS: settings.terms_version,
            PRIVACY: settings.privacy_version,
            MARKETING: "",
        }

    def check(self, request: auth_pb2.SignUpRequest) -> None:
        """That who signs up agrees to the texts as they are now. Raises InvalidFields."""
        asked = {
            "terms_version": (request.terms_version, self.versions[TERMS]),
            "privacy_version": (request.privacy_version, self.versions[PRIVACY]),
        }
        wrong = [
            Violation(field, f"must be {version}, the text that you agree to by it")
            for field, (given, version) in asked.items() if version and given != version
        ]  # fmt: skip
        if wrong:
            raise InvalidFields(violations=wrong)

    async def signed_up(self, connection: Connection, user_id: str, request: auth_pb2.SignUpRequest) -> None:
        """Writes down what they agreed to by it."""
        for kind in (TERMS, PRIVACY):
            if self.versions[kind]:
                await self.record(connection, user_id, kind, granted=True)
        if request.marketing_mail:
            await self.record(connection, user_id, MARKETING, granted=True)

    async def record(self, connection: Connection, user_id: str, kind: int, *, granted: bool) -> None:
        await self._store.add_consent(
            connection, id=ids.new("cns"), user_id=user_id, kind=kind, version=self.versions[kind], granted=granted,
            now=self._clock.now(),
        )  # fmt: skip

    def shown(self, rows: Mapping[int, Row]) -> list[privacy_pb2.Consent]:
        """How each stands."""
        return [self._one(kind, rows.get(kind)) for kind in (TERMS, PRIVACY, MARKETING)]

    def _one(self, kind: int, row: Row | None) -> privacy_pb2.Consent:
        consent = privacy_pb2.Consent(kind=kind, current_version=self.versions[kind])  # type: ignore[arg-type]
        if row is not None:
            consent.granted, consent.version = row["granted"], row["version"]
            at: datetime = row["recorded_at"]
            consent.record_time.FromDatetime(at)
        return consent


class ConsentServicer(privacy_pb2_grpc.ConsentServiceServicer):
    """Shows and changes the caller's."""

    def __init__(self, database: Database, store: PrivacyStore, consents: Consents) -> None:
        self._database = database
        self._store = store
        self._consents = consents

    async def GetConsents(
        self, request: privacy_pb2.GetConsentsRequest, context: Context
    ) -> privacy_pb2.GetConsentsResponse:
        async with self._database.connection() as connection:
            rows = await self._store.list_consents(connection, caller().user_id)
        return privacy_pb2.GetConsentsResponse(consents=self._consents.shown(rows))

    async def SetConsent(
        self, request: privacy_pb2.SetConsentRequest, context: Context
    ) -> privacy_pb2.SetConsentResponse:
        user_id, kind = caller().user_id, request.kind
        audit.about("user", user_id)
        if kind != MARKETING:
            if not request.granted:
                text = "is what the account rests on; to take it back, close the account: `mercat account delete`"
                raise InvalidFields(violations=[Violation("granted", text)])
            if request.version != self._consents.versions[kind]:
                current = self._consents.versions[kind] or "empty: there is no text to agree to"
                raise InvalidFields(violations=[Violation("version", f"must be the current one, {current}")])
        async with self._database.transaction() as connection:
            before = self._consents.shown(await self._store.list_consents(connection, user_id))[kind - 1]
            await self._consents.record(connection, user_id, kind, granted=request.granted)
            after = self._consents.shown(await self._store.list_consents(connection, user_id))[kind - 1]
            audit.changed(before, after)
        return privacy_pb2.SetConsentResponse(consent=after)
