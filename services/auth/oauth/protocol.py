"""What OAuth says to a request: Authlib's grants and endpoints over what was read for it beforehand.

The library calls back synchronously, and the database cannot be asked so. So everything that a request names is read
first, the library decides, and what it decided is carried out after it, in the same transaction."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from authlib.oauth2.rfc6749 import AuthorizationServer, OAuth2Request
from authlib.oauth2.rfc6749.errors import InvalidScopeError
from authlib.oauth2.rfc6749.grants import ClientCredentialsGrant, RefreshTokenGrant
from authlib.oauth2.rfc6749.requests import BasicOAuth2Payload
from authlib.oauth2.rfc7009 import RevocationEndpoint
from authlib.oauth2.rfc7662 import IntrospectionEndpoint
from authlib.oauth2.rfc8628 import DeviceAuthorizationEndpoint, DeviceCodeGrant

from services.auth.oauth.models import ALL, Client, Device, Token
from services.common.errors import FailedPrecondition, InvalidArgument, MercatError, PermissionDenied, Unauthenticated

WITH_SECRET = ["client_secret_basic", "client_secret_post"]
NONE = ["none"]
ANY = [*WITH_SECRET, *NONE]
INTERVAL, SLOWER = 5, 5  # seconds
LIFETIME = 600  # seconds in which a device must be let in
_CLASSES: dict[str, type[MercatError]] = {
    "invalid_client": Unauthenticated, "access_denied": PermissionDenied, "authorization_pending": FailedPrecondition,
    "slow_down": FailedPrecondition, "expired_token": FailedPrecondition,
}  # fmt: skip


class Form(OAuth2Request):  # type: ignore[misc]
    """The parameters of a request, without those that are empty (RFC 6749, 3.1)."""

    def __init__(self, parameters: Mapping[str, str]) -> None:
        super().__init__("POST", "https://mercat/oauth")  # it came through the front door, which minds the transport
        self._parameters = {name: value for name, value in parameters.items() if value}
        self.payload = BasicOAuth2Payload(self._parameters)

    @property
    def form(self) -> Mapping[str, str]:
        return self._parameters

    @property
    def args(self) -> Mapping[str, str]:
        return {}


@dataclass
class Decision:
    """What is to be done: the body of the answer, or the error; for a token whose, and of which scope."""

    body: Mapping[str, Any] = field(default_factory=dict)
    error: str = ""
    description: str = ""

    def refusal(self) -> MercatError:
        kind = _CLASSES.get(self.error, InvalidArgument)
        return kind(self.description or self.error.replace("_", " "), reason=f"OAUTH_{self.error.upper()}")


class Protocol(AuthorizationServer):  # type: ignore[misc]
    """Decides about one request. `client`, `device` and `token` are those that it names, where there are such."""

    def __init__(
        self, client: Client | None, *, device: Device | None = None, token: Token | None = None, page: str = ""
    ) -> None:
        """`page`: the URL where people let devices in."""
        super().__init__()
        self.client, self.device, self.token, self.page = client, device, token, page
        self.register_token_generator("default", lambda **_: {"token_type": "Bearer"})
        for grant in (_ClientCredentials, _DeviceCode, _Refresh):
            self.register_grant(grant)
        for endpoint in (_DeviceAuthorization, _Introspection, _Revocation):
            self.register_endpoint(endpoint)

    def decide_token(self, parameters: Mapping[str, str]) -> Decision:
        return self.create_token_response(parameters)  # type: ignore[no-any-return]

    def decide(self, endpoint: str, parameters: Mapping[str, str]) -> Decision:
        """`endpoint`: device_authorization, introspection or revocation."""
        return self.create_endpoint_response(endpoint, parameters)  # type: ignore[no-any-return]

    def create_oauth2_request(self, request: Mapping[str, str]) -> Form:
        return Form(request)

    def handle_response(self, status: int, body: Mapping[str, Any], headers: Any) -> Decision:
        if status == 200:
            return Decision(body)
        return Decision(error=str(body["error"]), description=str(body.get("error_description", "")))

    def query_client(self, client_id: str) -> Client | None:
        return self.client

    def save_token(self, token: Mapping[str, Any], request: Form) -> None:
        """Nothing yet: it is made when the library has decided."""

    def send_signal(self, name: str, *args: Any, **kwargs: Any) -> None: ...

    def get_error_uri(self, request: Form, error: Any) -> None:
        return None

    def validate_requested_scope(self, scope: str | None) -> None:
        known = ALL if self.client is None or self.client.scopes is None else self.client.scopes
        if scope and not known.issuperset(scope.split()):
            raise InvalidScopeError()


class _ClientCredentials(ClientCredentialsGrant):  # type: ignore[misc]
    TOKEN_ENDPOINT_AUTH_METHODS = WITH_SECRET


class _DeviceCode(DeviceCodeGrant):  # type: ignore[misc]
    TOKEN_ENDPOINT_AUTH_METHODS = ANY

    def query_device_credential(self, device_code: str) -> Device | None:
        return self.server.device  # type: ignore[no-any-return]

    def query_user_grant(self, user_code: str) -> tuple[str, bool] | None:
        row = self.server.device.row
        return None if row["approved"] is None else (row["user_id"], row["approved"])

    def should_slow_down(self, credential: Device) -> bool:
        return credential.is_early()


class _Refresh(RefreshTokenGrant):  # type: ignore[misc]
    TOKEN_ENDPOINT_AUTH_METHODS = ANY
    INCLUDE_NEW_REFRESH_TOKEN = True

    def authenticate_refresh_token(self, refresh_token: str) -> Token | None:
        return self.server.token  # type: ignore[no-any-return]

    def authenticate_user(self, refresh_token: Token) -> str:
        return refresh_token.user_id

    def revoke_old_credential(self, refresh_token: Token) -> None:
        """It is used up where it is used."""


class _DeviceAuthorization(DeviceAuthorizationEndpoint):  # type: ignore[misc]
    CLIENT_AUTH_METHODS = NONE
    EXPIRES_IN, INTERVAL = LIFETIME, INTERVAL

    def get_verification_uri(self) -> str:
        return self.server.page  # type: ignore[no-any-return]

    def save_device_credential(self, client_id: str, scope: str | None, data: Mapping[str, Any]) -> None:
        """As for tokens."""


class _Introspection(IntrospectionEndpoint):  # type: ignore[misc]
    CLIENT_AUTH_METHODS = WITH_SECRET

    def query_token(self, token_string: str, token_type_hint: str | None) -> Token | None:
        return self.server.token  # type: ignore[no-any-return]

    def check_permission(self, token: Token, client: Client, request: Form) -> bool:
        """Of one's own organisation alone: who calls in another is nobody's business."""
        return token.principal is not None and token.principal.org_id == client.org_id

    def introspect_token(self, token: Token) -> dict[str, Any]:
        return {}


class _Revocation(RevocationEndpoint):  # type: ignore[misc]
    CLIENT_AUTH_METHODS = ANY

    def query_token(self, token_string: str, token_type_hint: str | None) -> Token | None:
        return self.server.token  # type: ignore[no-any-return]

    def revoke_token(self, token: Token, request: Form) -> None:
        """As for tokens."""
