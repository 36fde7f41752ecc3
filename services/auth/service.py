"""Sign-up, sign-in, profile and API keys."""

from mercat.auth.v1 import auth_pb2, auth_pb2_grpc
from mercat.event.v1 import event_pb2

from services.auth import keys, passwords
from services.auth.accounts import Accounts, AccountTaken
from services.auth.handles.handles import Handles
from services.auth.organisations.roles import is_person
from services.auth.privacy.consents import Consents
from services.auth.sessions.sessions import Sessions
from services.auth.settings import AuthSettings
from services.auth.signin.mailed import MailedCodes
from services.auth.signin.proving import Proving
from services.auth.signin.strength import Strength
from services.auth.sso.requiring import Requiring
from services.auth.store import Row, Store
from services.auth.tokens import Signer
from services.common import audit, call_limits, etags, ids, key_rules, pages
from services.common.errors import (
    CredentialInvalid,
    EtagMismatch,
    InvalidFields,
    NotFound,
    Violation,
)
from services.common.events import broadcast
from services.common.rpc.context import Context, caller
from services.common.rpc.principals import FORGET_SUBJECT
from services.common.service import Deps


class AuthServicer(auth_pb2_grpc.AuthServiceServicer):
    """Serves `mercat.auth.v1.AuthService`."""

    def __init__(
        self, deps: Deps, settings: AuthSettings, store: Store, signer: Signer, sessions: Sessions, proving: Proving,
        codes: MailedCodes, strength: Strength, requiring: Requiring, consents: Consents, handles: Handles,
    ) -> None:  # fmt: skip
        self._consents = consents
        self._database = deps.database
        self._events = deps.events
        self._clock = deps.clock
        self._store = store
        self._signer = signer
        self._settings = settings
        self._sessions = sessions
        self._proving = proving
        self._accounts = Accounts(store, codes, handles, deps.clock)
        self._handles = handles
        self._strength = strength
        self._requiring = requiring

    async def ensure_admin(self, email: str, password: str) -> None:
        """Makes the first administrator when there is none of this email."""
        async with self._database.connection() as connection:
            known = await self._store.find_user(connection, email)
        if known is None and password:
            try:
                await self._add_user(email, "admin", password, auth_pb2.ROLE_ADMIN, "Administrator", known=True)
            except AccountTaken:  # another process was first
                return

    async def _add_user(
        self, email: str, username: str, password: str, role: int, display_name: str, *, known: bool,
        agrees: auth_pb2.SignUpRequest | None = None,
    ) -> str:  # fmt: skip
        """`known`: the address needs no verification. Raises AccountTaken."""
        password_hash = await passwords.hash_password(password)
        async with self._database.transaction() as connection:
            user_id = await self._accounts.add(
                connection, email, username, password_hash, role, display_name, known=known
            )
            if agrees is not None:
                await self._consents.signed_up(connection, user_id, agrees)
            return user_id

    async def SignUp(self, request: auth_pb2.SignUpRequest, context: Context) -> auth_pb2.SignUpResponse:
        role = request.role or auth_pb2.ROLE_CONSUMER
        if role not in (auth_pb2.ROLE_CONSUMER, auth_pb2.ROLE_PUBLISHER):
            raise InvalidFields(violations=[Violation("role", "must be ROLE_CONSUMER or ROLE_PUBLISHER")])
        self._handles.check_allowed(request.username, "username", operator=self._handles.is_operator(request.email))
        self._consents.check(request)
        await self._strength.check(request.password, [request.email, request.username, request.display_name])
        async with self._database.connection() as connection:
            await self._requiring.check_new(connection, request.email)
        user_id = await self._add_user(
            request.email, request.username, request.password, role, request.display_name,
            known=self._settings.is_known(request.email), agrees=request,
        )  # fmt: skip
        async with self._database.transaction() as connection:
            user = await self._store.get_user(connection, user_id)
            session = await self._sessions.open(connection, user_id)
        assert user is not None
        return auth_pb2.SignUpResponse(profile=profile_of(user), session=session)

    async def SignIn(self, request: auth_pb2.SignInRequest, context: Context) -> auth_pb2.SignInResponse:
        proved = self._proving.sign_in(request.email, request.password, request.code)
        async with proved as (connection, user, second_factor):
            audit.about("user", user["id"])
            audit.by(user["id"], user["org_id"])
            await self._requiring.check(connection, user["id"])
            session = await self._sessions.open(connection, user["id"], second_factor=second_factor)
        return auth_pb2.SignInResponse(profile=profile_of(user), session=session)

    async def RefreshSession(
        self, request: auth_pb2.RefreshSessionRequest, context: Context
    ) -> auth_pb2.RefreshSessionResponse:
        session = await self._sessions.refresh(request.refresh_token, request.organisation)
        return auth_pb2.RefreshSessionResponse(session=session)

    async def SignOut(self, request: auth_pb2.SignOutRequest, context: Context) -> auth_pb2.SignOutResponse:
        await self._sessions.end_by_token(request.refresh_token)
        return auth_pb2.SignOutResponse()

    async def GetProfile(self, request: auth_pb2.GetProfileRequest, context: Context) -> auth_pb2.GetProfileResponse:
        return auth_pb2.GetProfileResponse(profile=await self._own_profile())

    async def _own_profile(self) -> auth_pb2.Profile:
        principal = caller()
        if not is_person(principal.user_id):
            return auth_pb2.Profile(
                user_id=principal.user_id, role=principal.role, org_id=principal.org_id, organisation=principal.handle
            )
        async with self._database.connection() as connection:
            user = await self._store.get_user(connection, principal.user_id)
        if user is None:
            raise CredentialInvalid("this account is closed")
        profile = profile_of(user)
        profile.org_id, profile.organisation = principal.org_id, principal.handle
        return profile

    async def UpdateProfile(
        self, request: auth_pb2.UpdateProfileRequest, context: Context
    ) -> auth_pb2.UpdateProfileResponse:
        revision = etags.revision(request.etag, "profile")
        user_id = caller().user_id
        audit.about("user", user_id)
        before = await self._own_profile()
        async with self._database.transaction() as connection:
            changed = await self._store.update_profile(
                connection, user_id, request.display_name, revision, self._clock.now()
            )
            if not changed:
                raise EtagMismatch("the profile was changed meanwhile; read it again")
            audit.changed(auth_pb2.Profile(display_name=before.display_name))
        return auth_pb2.UpdateProfileResponse(profile=await self._own_profile())

    async def CreateApiKey(
        self, request: auth_pb2.CreateApiKeyRequest, context: Context
    ) -> auth_pb2.CreateApiKeyResponse:
        principal, now = caller(), self._clock.now()
        keys.check_free(principal)
        scopes = keys.choose(request.scopes, frozenset(principal.scopes))
        expires = keys.future(request.expires_at, now) if request.HasField("expires_at") else None
        keys.check_signs(request.rules, signs=False)
        limit, rules = call_limits.column(keys.limit_of(request)), key_rules.column(request.rules)
        secret = keys.generate(test=request.test)
        key_id = ids.new("key")
        audit.about("api_key", key_id)
        async with self._database.transaction() as connection:
            row = await self._store.add_api_key(
                connection, key_id=key_id, owner_id=principal.user_id, org_id=principal.org_id,
                created_by=principal.user_id, key_hash=keys.digest(secret), prefix=keys.prefix(secret),
                name=request.name, scopes=scopes, test=request.test, expires_at=expires, call_limit=limit, rules=rules,
                now=now,
            )  # fmt: skip
            key = keys.message_of(row)
            audit.changed(after=key)
        return auth_pb2.CreateApiKeyResponse(api_key=key, secret=secret)

    async def ListApiKeys(self, request: auth_pb2.ListApiKeysRequest, context: Context) -> auth_pb2.ListApiKeysResponse:
        principal = caller()
        key, most = pages.decode(request.page_token, str), pages.size(request.page_size)
        before = str(key[0]) if key else None
        async with self._database.connection() as connection:
            rows = await self._store.list_api_keys(connection, principal.user_id, principal.org_id, before, most + 1)
        token = pages.encode([rows[most - 1]["id"]]) if len(rows) > most else ""
        return auth_pb2.ListApiKeysResponse(api_keys=[keys.message_of(r) for r in rows[:most]], next_page_token=token)

    async def RevokeApiKey(
        self, request: auth_pb2.RevokeApiKeyRequest, context: Context
    ) -> auth_pb2.RevokeApiKeyResponse:
        principal = caller()
        audit.about("api_key", request.key_id)
        async with self._database.transaction() as connection:
            row = await self._store.revoke_api_key(connection, request.key_id, principal.user_id, principal.org_id)
            if row is None:
                raise NotFound("you have no such key; see `mercat keys list`", reason="API_KEY_NOT_FOUND")
            key = keys.message_of(row)
            audit.changed(after=key)
        # Quicker than the few seconds that others trust what they know of the key; those hold without any event.
        changed = event_pb2.PrincipalChanged(org_id=row["org_id"], key_id=row["id"])
        await broadcast(self._events, FORGET_SUBJECT, changed.SerializeToString())
        return auth_pb2.RevokeApiKeyResponse(api_key=key)

    async def GetJwks(self, request: auth_pb2.GetJwksRequest, context: Context) -> auth_pb2.GetJwksResponse:
        return auth_pb2.GetJwksResponse(keys=[key.public_jwk() for key in self._signer.keys])


def profile_of(user: Row) -> auth_pb2.Profile:
    """Of who is signed in, in their personal organisation."""
    profile = auth_pb2.Profile(
        user_id=user["id"], email=user["email"], username=user["username"], role=user["role"],
        is_verified=user["is_verified"], org_id=user["org_id"], organisation=user["username"],
        display_name=user["display_name"], etag=str(user["revision"]),
    )  # fmt: skip
    profile.created_at.FromDatetime(user["created_at"])
    profile.updated_at.FromDatetime(user["updated_at"])
    return profile
