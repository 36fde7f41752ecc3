"""What devices are asked and what they answer, for the platform's own site. No state, no database."""

import json
from dataclasses import dataclass
from urllib.parse import urlsplit

from webauthn import (
    generate_authentication_options,
    generate_registration_options,
    options_to_json,
    verify_authentication_response,
    verify_registration_response,
)
from webauthn.helpers import (
    parse_authentication_credential_json,
    parse_client_data_json,
    parse_registration_credential_json,
)
from webauthn.helpers.exceptions import WebAuthnException
from webauthn.helpers.structs import (
    AuthenticatorSelectionCriteria,
    PublicKeyCredentialDescriptor,
    ResidentKeyRequirement,
    UserVerificationRequirement,
)

from services.auth.store import Row
from services.common.errors import InvalidFields, Violation

_NAME = "Mercat"
_HERE = ("127.0.0.1", "::1")


@dataclass(frozen=True)
class Made:
    """A key that a device made."""

    credential_id: bytes
    public_key: bytes
    sign_count: int
    synced: bool


@dataclass(frozen=True)
class Used:
    """How a key was used."""

    sign_count: int
    synced: bool


class Ceremonies:
    """For the site at a URL. A key is bound to its host name, which an address is not: of this machine it is
    `localhost`."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        host = "localhost" if parts.hostname in _HERE else parts.hostname or "localhost"
        port = f":{parts.port}" if parts.port else ""
        self.site, self.origin = host, f"{parts.scheme}://{host}{port}"

    def registration(self, user: Row, challenge: bytes, known: list[bytes]) -> str:
        """For navigator.credentials.create, JSON: a key that is found without a name, and opened by its person."""
        return options_to_json(generate_registration_options(
            rp_id=self.site, rp_name=_NAME, user_id=user["id"].encode(), user_name=user["email"],
            user_display_name=user["display_name"] or user["username"], challenge=challenge,
            authenticator_selection=AuthenticatorSelectionCriteria(
                resident_key=ResidentKeyRequirement.REQUIRED, user_verification=UserVerificationRequirement.REQUIRED
            ),
            exclude_credentials=[PublicKeyCredentialDescriptor(id=one) for one in known],
        ))  # fmt: skip

    def sign_in(self, challenge: bytes) -> str:
        """For navigator.credentials.get, JSON: any key of this site."""
        return options_to_json(generate_authentication_options(
            rp_id=self.site, challenge=challenge, user_verification=UserVerificationRequirement.REQUIRED
        ))  # fmt: skip

    def answered(self, credential: str, *, new: bool) -> tuple[bytes, bytes, bytes]:
        """The challenge that a credential answers, its id, and whose it says it is. Nothing of it is proved by this.
        Raises InvalidFields for what is no credential."""
        try:
            if new:
                made = parse_registration_credential_json(credential)
                return parse_client_data_json(made.response.client_data_json).challenge, made.raw_id, b""
            used = parse_authentication_credential_json(credential)
            handle = used.response.user_handle or b""
            return parse_client_data_json(used.response.client_data_json).challenge, used.raw_id, handle
        except (WebAuthnException, ValueError, KeyError, TypeError, AttributeError):
            raise _invalid("is no answer of a device") from None

    def registered(self, credential: str, challenge: bytes) -> Made:
        """Raises InvalidFields."""
        try:
            made = verify_registration_response(
                credential=credential, expected_challenge=challenge, expected_rp_id=self.site,
                expected_origin=self.origin, require_user_verification=True,
            )  # fmt: skip
        except (WebAuthnException, ValueError, KeyError, TypeError, AttributeError) as e:
            raise _invalid(f"does not prove a new key: {e}") from None
        return Made(made.credential_id, made.credential_public_key, made.sign_count, made.credential_backed_up)

    def used(self, credential: str, challenge: bytes, row: Row) -> Used:
        """Raises InvalidFields."""
        try:
            used = verify_authentication_response(
                credential=credential, expected_challenge=challenge, expected_rp_id=self.site,
                expected_origin=self.origin, credential_public_key=row["public_key"],
                credential_current_sign_count=row["sign_count"], require_user_verification=True,
            )  # fmt: skip
        except (WebAuthnException, ValueError, KeyError, TypeError, AttributeError) as e:
            raise _invalid(f"does not prove the key: {e}") from None
        return Used(used.new_sign_count, used.credential_backed_up)


def name_of(credential: str) -> str:
    """What a key is called when its person gives no name."""
    try:
        kind = json.loads(credential).get("authenticatorAttachment")
    except (ValueError, AttributeError):
        kind = None
    return "Security key" if kind == "cross-platform" else "Passkey"


def _invalid(problem: str) -> InvalidFields:
    return InvalidFields(violations=[Violation("credential", problem)])
