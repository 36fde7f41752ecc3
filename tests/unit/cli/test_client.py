"""Calls against a server in this process: what is sent, what is repeated, how sessions are renewed."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.rpc import status_pb2
from mercat.auth.v1 import auth_pb2, auth_pb2_grpc, sessions_pb2, sessions_pb2_grpc
from mercat.billing.v1 import billing_pb2, billing_pb2_grpc
from mercat.usage.v1 import usage_pb2, usage_pb2_grpc

from services.cli import client as client_module
from services.cli.client import Client, Unreachable
from services.cli.credentials import Credentials
from services.cli.session import Logins, Refusal, parse_server
from services.common.errors import (
    STATUS_KEY,
    CredentialInvalid,
    IdempotencyKeyRunning,
    InsufficientCredit,
    MercatError,
    NotFound,
    SsoRequired,
    StepUpRequired,
    Unavailable,
    to_status,
)

NOW = 1_000_000.0


class Server(
    auth_pb2_grpc.AuthServiceServicer, billing_pb2_grpc.BillingServiceServicer, usage_pb2_grpc.UsageServiceServicer,
    sessions_pb2_grpc.SessionServiceServicer,
):  # fmt: skip
    """Answers what it is told to, one failure after the other; `calls` are the methods and metadata it saw."""

    def __init__(self) -> None:
        self.failures: list[MercatError] = []
        self.calls: list[tuple[str, dict[str, str]]] = []
        self.valid = {"first"}
        self.sessions = 0
        self.lock = threading.Lock()

    def _seen(self, method: str, context: Any, *, private: bool = True) -> None:
        metadata = dict(context.invocation_metadata())
        self.calls.append((method, metadata))
        if self.failures:
            self._abort(self.failures.pop(0), context)
        if private and metadata.get("authorization", "").removeprefix("Bearer ") not in self.valid:
            self._abort(CredentialInvalid("no"), context)

    def _abort(self, error: MercatError, context: Any) -> None:
        status: status_pb2.Status = to_status(error, "req_x")
        context.set_trailing_metadata(((STATUS_KEY, status.SerializeToString()),))
        context.abort(error.code, error.message)

    def GetProfile(self, request: Any, context: Any) -> auth_pb2.GetProfileResponse:  # noqa: N802
        self._seen("GetProfile", context)
        return auth_pb2.GetProfileResponse(profile=auth_pb2.Profile(username="ada"))

    def SignIn(self, request: Any, context: Any) -> auth_pb2.SignInResponse:  # noqa: N802
        self._seen("SignIn", context, private=False)
        return auth_pb2.SignInResponse()

    def RefreshSession(self, request: Any, context: Any) -> auth_pb2.RefreshSessionResponse:  # noqa: N802
        self._seen("RefreshSession", context, private=False)
        with self.lock:
            if request.refresh_token != f"refresh-{self.sessions}":
                self._abort(CredentialInvalid("used"), context)
            self.sessions += 1
            self.valid = {f"access-{self.sessions}"}
            return auth_pb2.RefreshSessionResponse(
                session=session(f"access-{self.sessions}", f"refresh-{self.sessions}")
            )

    def Reauthenticate(self, request: Any, context: Any) -> sessions_pb2.ReauthenticateResponse:  # noqa: N802
        self._seen(f"Reauthenticate code={request.code}", context)
        self.valid = {"proved"}
        return sessions_pb2.ReauthenticateResponse(session=session("proved", ""))

    def TopUpWallet(self, request: Any, context: Any) -> billing_pb2.TopUpWalletResponse:  # noqa: N802
        self._seen("TopUpWallet", context)
        return billing_pb2.TopUpWalletResponse(wallet=billing_pb2.Wallet(balance_nanos=request.amount_nanos))

    def StreamUsage(self, request: Any, context: Any) -> Iterator[usage_pb2.StreamUsageResponse]:  # noqa: N802
        self._seen("StreamUsage", context)
        yield usage_pb2.StreamUsageResponse(record=usage_pb2.UsageRecord(request_id="req_1"))
        self._abort(NotFound("gone"), context)


def session(access: str, refresh: str, lives: float = 900) -> auth_pb2.Session:
    made = auth_pb2.Session(access_token=access, refresh_token=refresh)
    made.access_expires_at.FromMilliseconds(int((NOW + lives) * 1000))
    return made


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server()
    running = grpc.server(ThreadPoolExecutor(8))
    auth_pb2_grpc.add_AuthServiceServicer_to_server(made, running)
    sessions_pb2_grpc.add_SessionServiceServicer_to_server(made, running)
    billing_pb2_grpc.add_BillingServiceServicer_to_server(made, running)
    usage_pb2_grpc.add_UsageServiceServicer_to_server(made, running)
    made.port = running.add_insecure_port("127.0.0.1:0")  # type: ignore[attr-defined]
    running.start()
    yield made
    running.stop(None).wait()


@pytest.fixture
def logins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Logins:
    monkeypatch.setattr(client_module, "_WAITS", (0.01, 0.01, 0.01))
    return Logins(tmp_path / "mercat" / "credentials.json")


def client_of(server: Server, logins: Logins, api_key: str = "", *, lives: float = 0) -> Client:
    target = parse_server(f"127.0.0.1:{server.port}")  # type: ignore[attr-defined]
    credentials = Credentials(target, api_key, "default", logins, lambda: NOW)
    if lives:
        credentials.keep(auth_pb2.Profile(username="ada"), session("first", "refresh-0", lives))
    return Client(target, credentials)


def profile(client: Client) -> str:
    return client.auth.GetProfile(auth_pb2.GetProfileRequest()).profile.username


def test_a_key_is_sent_and_nothing_is_renewed(server: Server, logins: Logins) -> None:
    assert profile(client_of(server, logins, "first")) == "ada"
    with pytest.raises(CredentialInvalid):
        profile(client_of(server, logins, "other"))
    assert [method for method, _ in server.calls] == ["GetProfile", "GetProfile"]


def test_without_a_credential_nothing_is_sent(server: Server, logins: Logins) -> None:
    with pytest.raises(Refusal, match="not logged in"):
        profile(client_of(server, logins))
    assert server.calls == []


def test_a_session_near_its_end_is_renewed_first(server: Server, logins: Logins) -> None:
    client = client_of(server, logins, lives=10)
    assert profile(client) == "ada"
    assert [method for method, _ in server.calls] == ["RefreshSession", "GetProfile"]
    assert profile(client) == "ada"
    assert [method for method, _ in server.calls[2:]] == ["GetProfile"]


def test_a_session_that_is_refused_is_renewed_once(server: Server, logins: Logins) -> None:
    client = client_of(server, logins, lives=900)
    server.valid = set()
    assert profile(client) == "ada"
    assert [method for method, _ in server.calls] == ["GetProfile", "RefreshSession", "GetProfile"]


def test_a_session_that_has_ended_is_forgotten(server: Server, logins: Logins) -> None:
    client = client_of(server, logins, lives=10)
    server.sessions = 7
    with pytest.raises(Refusal, match="not logged in"):
        profile(client)
    assert client.credentials.login() is None


def test_a_session_that_its_organisation_wants_otherwise_stays(server: Server, logins: Logins) -> None:
    client = client_of(server, logins, lives=10)
    server.failures = [SsoRequired("acme.com")]
    with pytest.raises(SsoRequired, match="--sso acme.com"):
        profile(client)
    assert client.credentials.login() is not None  # for `org use`
    # What anybody may call is called without it, to log in anew.
    sign_in = auth_pb2.SignInRequest(email="ada@acme.com")
    server.failures = [SsoRequired("acme.com")]  # of the renewal
    client.auth.SignIn(sign_in)
    fresh = client_of(server, logins, lives=900)
    server.failures = [SsoRequired("acme.com")]  # of the credential that was sent
    fresh.auth.SignIn(sign_in)
    sent = ["authorization" in metadata for method, metadata in server.calls if method == "SignIn"]
    assert sent == [False, True, False]


def test_two_commands_at_once_spend_a_refresh_token_once(server: Server, logins: Logins) -> None:
    client_of(server, logins, lives=10)
    clients = [client_of(server, Logins(logins.path)) for _ in range(6)]
    with ThreadPoolExecutor(6) as pool:
        assert list(pool.map(profile, clients)) == ["ada"] * 6
    assert [method for method, _ in server.calls].count("RefreshSession") == 1


def test_a_change_is_repeated_under_the_same_idempotency_key(server: Server, logins: Logins) -> None:
    server.failures = [Unavailable("later"), IdempotencyKeyRunning("still", retry_after=0.01)]
    client = client_of(server, logins, "first")
    client.billing.TopUpWallet(billing_pb2.TopUpWalletRequest(amount_nanos=1))
    keys = [metadata["idempotency-key"] for _, metadata in server.calls]
    assert len(keys) == 3
    assert len(set(keys)) == 1
    client.billing.TopUpWallet(billing_pb2.TopUpWalletRequest(amount_nanos=1))
    assert server.calls[-1][1]["idempotency-key"] not in keys


def test_reads_carry_no_idempotency_key(server: Server, logins: Logins) -> None:
    profile(client_of(server, logins, "first"))
    assert "idempotency-key" not in server.calls[0][1]


def test_a_key_of_the_callers_own_is_kept(server: Server, logins: Logins) -> None:
    client = client_of(server, logins, "first")
    client.billing.TopUpWallet(billing_pb2.TopUpWalletRequest(amount_nanos=1), metadata=(("idempotency-key", "mine"),))
    assert server.calls[0][1]["idempotency-key"] == "mine"


def test_refusals_are_not_repeated(server: Server, logins: Logins) -> None:
    server.failures = [InsufficientCredit("no credit")]
    with pytest.raises(InsufficientCredit) as refused:
        profile(client_of(server, logins, "first"))
    assert refused.value.metadata["request_id"] == "req_x"
    assert len(server.calls) == 1


def test_streams_carry_the_credential_and_end_in_the_error_raised(server: Server, logins: Logins) -> None:
    stream = client_of(server, logins, "first").usage.StreamUsage(usage_pb2.StreamUsageRequest())
    assert next(stream).record.request_id == "req_1"
    with pytest.raises(NotFound, match="gone"):
        next(stream)


def test_nobody_listens(logins: Logins) -> None:
    target = parse_server("127.0.0.1:1")
    client = Client(target, Credentials(target, "key", "default", logins, lambda: NOW))
    with pytest.raises(Unreachable, match=r"127\.0\.0\.1:1"):
        profile(client)


def test_who_must_prove_again_who_they_are_is_asked_once(server: Server, logins: Logins) -> None:
    client = client_of(server, logins, lives=900)
    asked: list[str] = []

    def ask(means: str) -> str:
        asked.append(means)
        return "123456"

    step_up = StepUpRequired("again", metadata={"with": "code"})
    server.failures = [step_up]
    with pytest.raises(StepUpRequired):  # nobody can be asked
        client.billing.TopUpWallet(billing_pb2.TopUpWalletRequest(amount_nanos=5))
    client.credentials.ask = ask
    server.failures = [step_up]
    client.billing.TopUpWallet(billing_pb2.TopUpWalletRequest(amount_nanos=5))
    methods = [method for method, _ in server.calls[1:]]
    assert methods == ["TopUpWallet", "Reauthenticate code=123456", "TopUpWallet"]
    assert server.calls[1][1]["idempotency-key"] == server.calls[3][1]["idempotency-key"]
    login = logins.get("default", f"http://127.0.0.1:{server.port}")  # type: ignore[attr-defined]
    assert login is not None
    assert (login.access_token, login.refresh_token) == ("proved", "refresh-0")
    server.failures = [step_up, step_up, step_up]
    with pytest.raises(StepUpRequired):  # not again and again
        client.billing.TopUpWallet(billing_pb2.TopUpWalletRequest(amount_nanos=5))
    assert asked == ["code", "code"]
