"""Calls to the platform: adds the credential, renews it, repeats what may be repeated, rebuilds errors.

A call that changes something carries an idempotency key, and its repetitions the same one: it happens once."""

import platform
import socket
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import typer
from google.protobuf import descriptor_pool
from mercat.auth.v1 import auth_pb2, auth_pb2_grpc, sessions_pb2, sessions_pb2_grpc
from mercat.common.v1 import policy_pb2

from services.cli import signer
from services.cli.credentials import Credentials
from services.cli.session import Refusal, Target
from services.cli.stubs import Stubs
from services.common.errors import (
    CredentialInvalid,
    MercatError,
    SsoRequired,
    StepUpRequired,
    Unavailable,
    from_rpc_error,
)
from services.common.rpc.policy import Policy, policy_of
from services.common.signatures import Signer

TIMEOUT = 30.0  # seconds, for a call that is given none
_WAITS = (0.2, 0.6, 1.5)  # seconds before each repetition
_MAX_MESSAGE = 64 * 1024 * 1024  # bytes, as the servers take
_OPTIONS = [
    ("grpc.primary_user_agent", f"mercat ({platform.system()})"),  # what a list of sessions shows
    ("grpc.max_receive_message_length", _MAX_MESSAGE),
    ("grpc.max_send_message_length", _MAX_MESSAGE),
    ("grpc.enable_retries", 0),  # repeated here, with the idempotency key in sight
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 500),
]


class Unreachable(Exception):
    """Nobody answers at the server's address."""


class Client(Stubs):
    """The platform. Calls raise MercatError as the server raised it, or Unreachable."""

    def __init__(self, target: Target, credentials: Credentials, signer: Signer | None = None) -> None:
        self.target = target
        self.credentials = credentials
        self._channel = _open(target)
        self.channel = grpc.intercept_channel(self._channel, _Around(target, credentials, signer))
        credentials.refresh = self._refresh
        credentials.reauthenticate = self._reauthenticate

    def _refresh(self, token: str, organisation: str = "") -> auth_pb2.Session:
        request = auth_pb2.RefreshSessionRequest(refresh_token=token, organisation=organisation)
        stub = auth_pb2_grpc.AuthServiceStub(self._channel)
        try:
            return stub.RefreshSession(request, timeout=TIMEOUT).session
        except grpc.RpcError as error:
            raise rebuilt(error, self.target) from None

    def _reauthenticate(self, token: str, means: str, said: str) -> auth_pb2.Session:
        request = sessions_pb2.ReauthenticateRequest(**{means: said})
        metadata = (("authorization", f"Bearer {token}"),)
        try:
            stub = sessions_pb2_grpc.SessionServiceStub(self._channel)
            return stub.Reauthenticate(request, timeout=TIMEOUT, metadata=metadata).session
        except grpc.RpcError as error:
            raise rebuilt(error, self.target) from None

    def close(self) -> None:
        self._channel.close()


def _warn(call: Any) -> None:
    """Says on standard error that the version that answered is on its way out, or was taken back."""
    told = {name: str(value) for name, value in call.trailing_metadata() or ()}
    version = told.get("mercat-model-version", "")
    if "mercat-deprecation" in told:
        until = f" until {told['mercat-sunset']}" if "mercat-sunset" in told else ""
        instead = f"; call {told['mercat-successor']} instead" if "mercat-successor" in told else ""
        typer.echo(f"Version {version} is deprecated and answers{until or ' still'}{instead}.", err=True)
    if "mercat-yanked" in told:
        typer.echo(f"Version {version} was yanked: {told['mercat-yanked']}", err=True)


def _open(target: Target) -> grpc.Channel:
    if not target.tls:
        return grpc.insecure_channel(target.address, options=_OPTIONS)
    try:
        roots = Path(target.ca).read_bytes() if target.ca else None
    except OSError as error:
        raise Refusal(f"The authority's file {target.ca} cannot be read ({error.strerror}).") from error
    return grpc.secure_channel(target.address, grpc.ssl_channel_credentials(roots), options=_OPTIONS)


def policy(path: str) -> Policy:
    """The policy that the contract declares for `/package.Service/Method`."""
    service, _, method = path.lstrip("/").partition("/")
    return policy_of(descriptor_pool.Default().FindServiceByName(service).methods_by_name[method])


def rebuilt(error: grpc.RpcError, target: Target) -> Exception:
    """The error that the server raised; Unreachable when there is no server, Refusal when it cannot be trusted."""
    known = from_rpc_error(error)
    if "CERTIFICATE_VERIFY_FAILED" in known.message and known.reason == "UNAVAILABLE":
        hint = "name the file of its authority with MERCAT_CA; `mercat up` keeps it as tls/ca.pem in its home"
        return Refusal(f"The certificate of {target.address} is not signed by an authority trusted here.", hint)
    silent = known.reason in ("UNAVAILABLE", "DEADLINE_EXCEEDED")  # without a reason of the platform's own
    if silent and not _listens(target):
        return Unreachable(f"Nobody answers at {target.address}.")
    return known


def _listens(target: Target) -> bool:
    try:
        socket.create_connection((target.host, target.port), timeout=2).close()
    except OSError:
        return False
    return True


class _Around(
    grpc.UnaryUnaryClientInterceptor,  # type: ignore[type-arg]
    grpc.UnaryStreamClientInterceptor,  # type: ignore[type-arg]
    grpc.StreamUnaryClientInterceptor,  # type: ignore[type-arg]
):
    def __init__(self, target: Target, credentials: Credentials, signer: Signer | None) -> None:
        self._target = target
        self._credentials = credentials
        self._signer = signer

    def _with(
        self, details: Any, credential: str, *, timeout: float | None, key: str = "", message: bytes | None = None
    ) -> Any:
        """`message`: of a call that does not stream its messages."""
        metadata = list(details.metadata or [])
        metadata += signer.metadata(self._signer, self._target.address, details.method, message)
        if credential:
            metadata.append(("authorization", f"Bearer {credential}"))
        if key and all(name != "idempotency-key" for name, _ in metadata):
            metadata.append(("idempotency-key", key))
        return details._replace(metadata=metadata, timeout=details.timeout or timeout)

    def _credential(self, rules: Policy) -> str:
        try:
            credential = self._credentials.current()
        except SsoRequired:
            if rules.access == policy_pb2.ACCESS_ACCOUNT:
                raise
            return ""  # who logs in anew is not held up by the login before
        if not credential and rules.access == policy_pb2.ACCESS_ACCOUNT:
            raise Refusal("You are not logged in at " + self._target.address + ".", "log in with `mercat login`, "
                          "sign up with `mercat signup`, or give a key with --api-key or MERCAT_API_KEY")  # fmt: skip
        return credential

    def intercept_unary_unary(self, continuation: Any, details: Any, request: Any) -> Any:
        rules = policy(details.method)
        credential = self._credential(rules)
        key = str(uuid.uuid4()) if rules.mutates else ""
        message = request.SerializeToString() if self._signer is not None else None
        renewed = proved = False
        waits = iter(_WAITS)
        repeating = False
        while True:
            outcome = continuation(self._with(details, credential, timeout=TIMEOUT, key=key, message=message), request)
            error = outcome.exception()
            if error is None:
                _warn(outcome)
                return outcome
            if not isinstance(error, grpc.RpcError):
                raise error
            known = rebuilt(error, self._target)
            if isinstance(known, CredentialInvalid) and credential and not renewed:
                renewed, fresh = True, self._credentials.renewed(credential)
                if fresh or rules.access == policy_pb2.ACCESS_PUBLIC:
                    credential = fresh
                    continue
            if isinstance(known, SsoRequired) and credential and rules.access == policy_pb2.ACCESS_PUBLIC:
                credential = ""
                continue
            if isinstance(known, StepUpRequired) and not proved:
                proved, fresh = True, self._credentials.proved(known.metadata.get("with", "password"))
                if fresh:
                    credential = fresh
                    continue
            # Refused as still running: the repetition overtook the call whose answer was lost.
            running = repeating and isinstance(known, MercatError) and known.reason == "IDEMPOTENCY_KEY_RUNNING"
            wait = next(waits, None)
            if wait is None or not (running or isinstance(known, Unavailable | Unreachable)):
                raise known
            repeating = True
            after = known.retry_after if isinstance(known, MercatError) else None
            time.sleep(min(max(wait, after or 0.0), 5.0))

    def intercept_unary_stream(self, continuation: Any, details: Any, request: Any) -> Any:
        credential = self._credential(policy(details.method))
        message = request.SerializeToString() if self._signer is not None else None
        call = continuation(self._with(details, credential, timeout=None, message=message), request)
        return self._messages(call)

    def _messages(self, call: Any) -> Iterator[Any]:
        try:
            yield from call
        except grpc.RpcError as error:
            raise rebuilt(error, self._target) from None
        finally:
            call.cancel()

    def intercept_stream_unary(self, continuation: Any, details: Any, request_iterator: Any) -> Any:
        credential = self._credential(policy(details.method))
        outcome = continuation(self._with(details, credential, timeout=None), request_iterator)
        error = outcome.exception()
        if isinstance(error, grpc.RpcError):
            raise rebuilt(error, self._target)
        return outcome
