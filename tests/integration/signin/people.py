"""People who sign in, and the SMTP server that their mail comes to."""

import re
import time
from dataclasses import dataclass, field
from datetime import timedelta
from email import message_from_bytes, policy
from email.message import EmailMessage
from typing import Any, cast

import grpc
import pyotp
from mercat.auth.v1 import auth_pb2, mfa_pb2, mfa_pb2_grpc, sessions_pb2, sessions_pb2_grpc, signin_pb2_grpc

from services.common import clock
from services.common.errors import from_rpc_error
from tests.platform import PASSWORD, Account, Platform, _Credential

_CODE = re.compile(r"[0-9a-z]{4}(?:-[0-9a-z]{4}){3}")


@dataclass
class Mailbox:
    """What the server was given, whomever it was for. `answers`: what it says first, before it takes mail."""

    port: int = 0
    messages: list[EmailMessage] = field(default_factory=list)
    answers: dict[str, list[str]] = field(default_factory=dict)

    @property
    def settings(self) -> dict[str, str]:
        """Of a platform whose mail comes here, and whose clock can be moved."""
        return {
            "MERCAT_SMTP_HOST": "127.0.0.1", "MERCAT_SMTP_PORT": str(self.port), "MERCAT_SMTP_TLS": "none",
            "MERCAT_TEST_CLOCK": "true",
        }  # fmt: skip

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:  # noqa: N802
        message = cast("EmailMessage", message_from_bytes(envelope.content, policy=policy.default))
        assert envelope.rcpt_tos == [message["To"]]
        self.messages.append(message)
        waiting = self.answers.get(message["To"])
        return waiting.pop(0) if waiting else "250 taken"

    def to(self, address: str, count: int = 1, subject: str = "") -> list[EmailMessage]:
        """Waits until so many mails came to an address; all that did."""
        deadline = time.monotonic() + 20
        while True:
            found = [m for m in self.messages if m["To"] == address and subject in m["Subject"]]
            if len(found) >= count:
                return found
            assert time.monotonic() < deadline, f"{len(found)} of {count} mails came to {address}"
            time.sleep(0.02)

    def code(self, address: str, count: int = 1, subject: str = "") -> str:
        """The code in the last of them."""
        text = self.to(address, count, subject)[-1].get_body(("plain",)).get_content()  # type: ignore[union-attr]
        return _CODE.findall(text)[0]


def move(platform: Platform, **by: float) -> None:
    """Moves the platform's clock ahead."""
    clock.move(timedelta(**by), platform.home)


@dataclass
class Member:
    """Somebody with a session."""

    platform: Platform
    email: str
    session: auth_pb2.Session
    profile: auth_pb2.Profile

    def __getattr__(self, name: str) -> Any:
        stubs = {
            "passwords": signin_pb2_grpc.PasswordServiceStub, "sessions": sessions_pb2_grpc.SessionServiceStub,
            "second": mfa_pb2_grpc.SecondFactorServiceStub,
        }  # fmt: skip
        if name not in stubs:
            return getattr(self.account, name)
        return stubs[name](grpc.intercept_channel(self.platform.channel, _Credential(self.account.metadata)))

    @property
    def account(self) -> Account:
        return Account(self.platform, self.session.access_token, self.profile, self.email)

    def again(self, password: str = PASSWORD, code: str = "") -> "Member":
        """Signs in once more, as on another device."""
        request = auth_pb2.SignInRequest(email=self.email, password=password, code=code)
        signed = self.platform.anonymous.auth.SignIn(request)
        return Member(self.platform, self.email, signed.session, signed.profile)


def member(platform: Platform, role: int = auth_pb2.ROLE_CONSUMER) -> Member:
    made = platform.sign_up(role)
    nobody = Member(platform, made.email, auth_pb2.Session(), made.profile)
    return nobody.again()


def enrolled(platform: Platform) -> tuple[Member, str, list[str]]:
    """Somebody with a second factor, whose session was proved with it; the secret of their app, and recovery codes. The
    code of the step before now is used up."""
    person = member(platform)
    secret = person.second.EnrollTotp(mfa_pb2.EnrollTotpRequest()).secret
    answer = person.second.ConfirmTotp(mfa_pb2.ConfirmTotpRequest(code=code_of(platform, secret, steps=-1)))
    person.session.access_token = answer.session.access_token
    return person, secret, list(answer.recovery_codes)


def confirm(person: Member, **proof: str) -> Member:
    """Proves again who somebody is; the same session with its new access token."""
    session = person.sessions.Reauthenticate(sessions_pb2.ReauthenticateRequest(**proof)).session
    assert not session.refresh_token
    return Member(person.platform, person.email, session, person.profile)


def now(platform: Platform) -> float:
    """By the platform's clock, seconds since 1970."""
    return clock.move(timedelta(), platform.home).timestamp()


def code_of(platform: Platform, secret: str, steps: int = 0) -> str:
    """What an authenticator app shows, so many steps from now."""
    return pyotp.TOTP(secret).at(int(now(platform)) + 30 * steps)


def ends(call: Any, request: Any) -> str:
    """The reason that a call is refused for from now on: what has ended is known everywhere in five seconds."""
    deadline = time.monotonic() + 5
    while True:
        try:
            call(request)
        except grpc.RpcError as e:
            return from_rpc_error(e).reason
        assert time.monotonic() < deadline
        time.sleep(0.02)
