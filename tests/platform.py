"""A running Mercat for tests and benchmarks: `mercat up` in a home and on a port of its own, and people who use it."""

import asyncio
import contextlib
import hashlib
import json
import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import asyncpg
import grpc
import nats
import psutil
from google.api import httpbody_pb2
from mercat.auth.v1 import (
    audit_pb2_grpc,
    auth_pb2,
    auth_pb2_grpc,
    identity_pb2_grpc,
    keys_pb2_grpc,
    oauth_pb2_grpc,
    organisation_pb2,
    organisation_pb2_grpc,
    passkey_pb2_grpc,
    privacy_pb2_grpc,
    sessions_pb2_grpc,
    sso_pb2_grpc,
    team_pb2_grpc,
)
from mercat.billing.v1 import (
    billing_pb2,
    billing_pb2_grpc,
    budgets_pb2_grpc,
    credits_pb2_grpc,
    invoices_pb2_grpc,
    payments_pb2_grpc,
    payouts_pb2_grpc,
    plans_pb2_grpc,
    prices_pb2_grpc,
    proof_pb2_grpc,
)
from mercat.common.v1 import tensor_pb2
from mercat.inference.v1 import inference_pb2_grpc, text_pb2_grpc
from mercat.marketplace.v1 import (
    collections_pb2_grpc,
    discovery_pb2_grpc,
    marketplace_pb2_grpc,
    publishers_pb2_grpc,
    reviews_pb2_grpc,
)
from mercat.notification.v1 import webhooks_pb2_grpc
from mercat.registry.v1 import (
    access_pb2_grpc,
    card_pb2_grpc,
    lineage_pb2_grpc,
    provenance_pb2_grpc,
    registry_pb2,
    registry_pb2_grpc,
    transfer_pb2_grpc,
)
from mercat.storage.v1 import storage_pb2, storage_pb2_grpc
from mercat.usage.v1 import usage_pb2_grpc

from services.common.events import USAGE_STREAM
from services.embedded.ports import free_ports, is_free
from tests import processes, template

PASSWORD = "correct horse battery staple"
USD = 1_000_000_000  # nanos
ADMIN_EMAIL = "admin@mercat.localhost"
T = TypeVar("T")


def free_port() -> int:
    """A port that is free now, and so is the one 443 above it."""
    while True:
        (port,) = free_ports(1)
        if is_free(port + 443):
            return port


def _apart(ask: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """What a coroutine answers; the caller may be in an event loop of its own."""
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(lambda: asyncio.run(ask())).result()


@dataclass
class Account:
    """A person: their credential on every call, and the stubs they call with."""

    platform: "Platform"
    api_key: str
    profile: auth_pb2.Profile = field(default_factory=auth_pb2.Profile)
    email: str = ""

    @property
    def metadata(self) -> list[tuple[str, str]]:
        return [("authorization", f"Bearer {self.api_key}")] if self.api_key else []

    def __getattr__(self, name: str) -> Any:
        stubs = {
            "auth": auth_pb2_grpc.AuthServiceStub, "registry": registry_pb2_grpc.RegistryServiceStub,
            "cards": card_pb2_grpc.CardServiceStub,
            "lineage": lineage_pb2_grpc.LineageServiceStub,
            "publisher_keys": provenance_pb2_grpc.PublisherKeyServiceStub,
            "transfers": transfer_pb2_grpc.TransferServiceStub, "access": access_pb2_grpc.AccessServiceStub,
            "storage": storage_pb2_grpc.StorageServiceStub, "billing": billing_pb2_grpc.BillingServiceStub,
            "usage": usage_pb2_grpc.UsageServiceStub, "inference": inference_pb2_grpc.InferenceServiceStub,
            "marketplace": marketplace_pb2_grpc.MarketplaceServiceStub, "reviews": reviews_pb2_grpc.ReviewServiceStub,
            "discovery": discovery_pb2_grpc.DiscoveryServiceStub,
            "publishers": publishers_pb2_grpc.PublisherServiceStub,
            "collections": collections_pb2_grpc.CollectionServiceStub, "jobs": inference_pb2_grpc.JobServiceStub,
            "limits": auth_pb2_grpc.LimitServiceStub, "text": text_pb2_grpc.TextServiceStub,
            "receipts": billing_pb2_grpc.ReceiptServiceStub, "plans": plans_pb2_grpc.PlanServiceStub,
            "payouts": payouts_pb2_grpc.PayoutServiceStub,
            "invoices": invoices_pb2_grpc.InvoiceServiceStub, "payments": payments_pb2_grpc.PaymentServiceStub,
            "prices": prices_pb2_grpc.PriceServiceStub,
            "budgets": budgets_pb2_grpc.BudgetServiceStub,
            "proof": proof_pb2_grpc.ProofServiceStub,
            "credits": credits_pb2_grpc.CreditServiceStub, "audit": audit_pb2_grpc.AuditServiceStub,
            "keys": keys_pb2_grpc.ApiKeyServiceStub,
            "organisations": organisation_pb2_grpc.OrganisationServiceStub,
            "sessions": sessions_pb2_grpc.SessionServiceStub,
            "sso": sso_pb2_grpc.SsoServiceStub,
            "teams": team_pb2_grpc.TeamServiceStub,
            "invitations": organisation_pb2_grpc.InvitationServiceStub,
            "service_accounts": organisation_pb2_grpc.ServiceAccountServiceStub,
            "oauth": oauth_pb2_grpc.OAuthServiceStub, "oauth_clients": oauth_pb2_grpc.OAuthClientServiceStub,
            "devices": oauth_pb2_grpc.DeviceServiceStub, "identities": identity_pb2_grpc.IdentityServiceStub,
            "passkeys": passkey_pb2_grpc.PasskeyServiceStub, "webhooks": webhooks_pb2_grpc.WebhookEndpointServiceStub,
            "privacy": privacy_pb2_grpc.PrivacyServiceStub,
            "consents": privacy_pb2_grpc.ConsentServiceStub,
        }  # fmt: skip
        if name not in stubs:
            raise AttributeError(name)
        return stubs[name](grpc.intercept_channel(self.platform.channel, _Credential(self.metadata)))

    def balance(self) -> int:
        """What the wallet holds, nanos."""
        return int(self.billing.GetWallet(billing_pb2.GetWalletRequest()).wallet.balance_nanos)

    def earned(self) -> int:
        return int(self.billing.GetEarnings(billing_pb2.GetEarningsRequest()).payable_nanos)

    def check_ledger(self) -> billing_pb2.CheckLedgerResponse:
        """What the reconciler finds; for an admin."""
        return self.billing.CheckLedger(billing_pb2.CheckLedgerRequest(), timeout=300)  # type: ignore[no-any-return]

    def top_up(self, nanos: int) -> None:
        self.billing.TopUpWallet(billing_pb2.TopUpWalletRequest(amount_nanos=nanos))


class _Credential(
    grpc.UnaryUnaryClientInterceptor, grpc.UnaryStreamClientInterceptor, grpc.StreamUnaryClientInterceptor,
    grpc.StreamStreamClientInterceptor,
):  # fmt: skip
    def __init__(self, metadata: list[tuple[str, str]]) -> None:
        self._metadata = metadata

    def _with(self, details: Any) -> Any:
        return details._replace(metadata=[*(details.metadata or []), *self._metadata], timeout=details.timeout or 30)

    def intercept_unary_unary(self, continuation, details, request):  # type: ignore[no-untyped-def]
        return continuation(self._with(details), request)

    intercept_unary_stream = intercept_stream_unary = intercept_stream_stream = intercept_unary_unary


class Platform:
    """`mercat up`, started and stopped as a person would. `env` is added to its environment."""

    def __init__(
        self, home: Path, *, workers: int = 1, demo: bool = False, env: Mapping[str, str] | None = None, port: int = 0
    ) -> None:
        self.home = home
        self.port = port or free_port()
        self.workers = workers
        self.demo = demo
        self.env = dict(env or {})
        self.grpc = f"127.0.0.1:{self.port}"
        self.rest = f"http://127.0.0.1:{self.port}"
        self.admin_password = secrets.token_urlsafe(16)
        self._process: subprocess.Popen[bytes] | None = None
        self._channel: grpc.Channel | None = None

    @property
    def connection(self) -> dict[str, Any]:
        return dict(json.loads((self.home / "connection.json").read_text()))

    @property
    def channel(self) -> grpc.Channel:
        if self._channel is None:
            self._channel = grpc.insecure_channel(self.grpc, options=[("grpc.enable_retries", 0)])
        return self._channel

    def command(self, *args: str, **env: str) -> "subprocess.CompletedProcess[str]":
        """`mercat …` in this home."""
        return subprocess.run(
            [sys.executable, "-m", "services.cli.main", *args],
            env=self.environment | env, capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip

    @property
    def environment(self) -> dict[str, str]:
        return os.environ | {
            "MERCAT_HOME": str(self.home), "MERCAT_PORT": str(self.port), "MERCAT_WORKERS": str(self.workers),
            "MERCAT_DEMO": "true" if self.demo else "false", "MERCAT_ADMIN_EMAIL": ADMIN_EMAIL,
            "MERCAT_ADMIN_PASSWORD": self.admin_password, "NO_COLOR": "1", "MERCAT_LIMIT_SCALE": "1000",
            "MERCAT_ADDRESS_FAILURES": "100000",  # all tests come from one address
            **self.env,
        }  # fmt: skip

    def start(self, timeout: float = 120) -> "Platform":
        """Returns when everything answers."""
        if "MERCAT_POSTGRES_URL" not in self.env:
            template.give(self.home)
        self.home.mkdir(parents=True, exist_ok=True)
        with (self.home.parent / f"{self.home.name}.up.log").open("ab") as log:
            self._process = processes.start(
                [sys.executable, "-m", "services.cli.main", "up"],
                env=self.environment, stdout=log, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
            )  # fmt: skip
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                raise RuntimeError(f"mercat up ended with {self._process.returncode}:\n{self.log()}")
            if self._ready():
                return self
            time.sleep(0.1)
        self.stop()
        raise RuntimeError(f"mercat up was not ready in {timeout} s:\n{self.log()}")

    def _ready(self) -> bool:
        try:
            state = json.loads((self.home / "run" / "state.json").read_text())
        except (OSError, ValueError):
            return False
        if state.get("phase") != "ready":
            return False
        return not self.demo or bool(self.connection.get("models"))

    def log(self) -> str:
        texts = [(self.home.parent / f"{self.home.name}.up.log").read_text(errors="replace")[-3000:]]
        logs = sorted((self.home / "logs").glob("*.log"))
        texts += [f"--- {path.name}\n{path.read_text(errors='replace')[-1500:]}" for path in logs]
        return "\n".join(texts)

    def stop(self) -> None:
        """Ctrl-C, and waits until everything has stopped."""
        if self._channel is not None:
            self._channel.close()
            self._channel = None
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGINT)
            try:
                self._process.wait(60)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
                raise
        self._process = None

    def __enter__(self) -> "Platform":
        return self.start()

    def __exit__(self, *exc: object) -> None:
        self.stop()

    def pids(self) -> dict[str, int]:
        """Process ids by part: postgres, valkey, nats, control, worker-0, gateway, envoy."""
        state = json.loads((self.home / "run" / "state.json").read_text())
        return {part["name"]: part["pid"] for part in state["parts"] if part.get("pid")}

    def states(self) -> dict[str, str]:
        """How each part is: ready, starting, …"""
        state = json.loads((self.home / "run" / "state.json").read_text())
        return {part["name"]: part["state"] for part in state["parts"]}

    def postgres_url(self) -> str:
        """The database's address with all rights in it, as this platform's own processes were told."""
        return psutil.Process(self.pids()["control"]).environ()["MERCAT_POSTGRES_URL"]

    def nats_url(self) -> str:
        """The broker's address, as this platform's own processes were told."""
        return psutil.Process(self.pids()["control"]).environ()["MERCAT_NATS_URL"]

    def backlog(self) -> int:
        """Messages of usage that are not yet stored and posted."""

        async def ask() -> int:
            client = await nats.connect(self.nats_url())
            try:
                return int((await client.jetstream().stream_info(USAGE_STREAM)).state.messages)
            finally:
                await client.close()

        return _apart(ask)

    def value(self, query: str) -> Any:
        """What the database answers, with all rights in it."""

        async def ask() -> Any:
            connection = await asyncpg.connect(self.postgres_url())
            try:
                return await connection.fetchval(query)
            finally:
                await connection.close()

        return _apart(ask)

    def redis_url(self) -> str:
        """Redis' address, as this platform's own processes were told."""
        return psutil.Process(self.pids()["control"]).environ()["MERCAT_REDIS_URL"]

    def addresses(self) -> dict[str, str]:
        """Where Mercat's own processes listen, by part, `host:port`."""
        found: dict[str, str] = {}
        for name, pid in self.pids().items():
            command = psutil.Process(pid).cmdline()
            if "--listen" in command:
                found[name] = command[command.index("--listen") + 1]
        return found

    def kill(self, part: str) -> int:
        """SIGKILL; the supervisor starts it anew. Answers the process id that died."""
        pid = self.pids()[part]
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        return pid

    def until_ready(self, part: str, died: int = 0) -> None:
        """Returns when the supervisor has a part back, as another process than the one that died. Fails after
        two minutes."""
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            if self.states().get(part) == "ready" and self.pids().get(part) not in (None, died):
                return
            time.sleep(0.05)
        raise TimeoutError(f"{part} did not come back:\n{self.log()}")

    # People

    @property
    def anonymous(self) -> Account:
        return Account(self, "")

    def admin(self) -> Account:
        signed = self.anonymous.auth.SignIn(auth_pb2.SignInRequest(email=ADMIN_EMAIL, password=self.admin_password))
        return Account(self, signed.session.access_token, signed.profile, ADMIN_EMAIL)

    def sign_up(self, role: int = auth_pb2.ROLE_CONSUMER, *, credit: int = 0, name: str = "") -> Account:
        """A new person with an API key of all their scopes, and credit in nanos."""
        name = name or f"t{secrets.token_hex(6)}"
        email = f"{name}@example.com"
        signed = self.anonymous.auth.SignUp(
            auth_pb2.SignUpRequest(email=email, username=name, password=PASSWORD, role=role)
        )
        person = Account(self, signed.session.access_token, signed.profile, email)
        made = person.auth.CreateApiKey(auth_pb2.CreateApiKeyRequest(name="tests"))
        person = Account(self, made.secret, signed.profile, email)
        if credit:
            person.top_up(credit)
        return person

    def session(self, person: Account, organisation: str = "") -> Account:
        """The person signed in, for an organisation; else for their own."""
        session = self.anonymous.auth.SignIn(auth_pb2.SignInRequest(email=person.email, password=PASSWORD)).session
        request = auth_pb2.RefreshSessionRequest(refresh_token=session.refresh_token, organisation=organisation)
        session = self.anonymous.auth.RefreshSession(request).session
        signed = Account(self, session.access_token, email=person.email)
        signed.profile = signed.auth.GetProfile(auth_pb2.GetProfileRequest()).profile
        return signed

    def organisation(self, owner: Account, handle: str = "") -> Account:
        """A new organisation: its owner's session for it."""
        handle = handle or f"o{secrets.token_hex(6)}"
        session = self.session(owner)
        session.organisations.CreateOrganisation(organisation_pb2.CreateOrganisationRequest(handle=handle))
        return self.session(owner, handle)

    def join(self, admin: Account, person: Account, role: str) -> Account:
        """Makes a person a member of the organisation that `admin` is signed in for: their session for it."""
        request = organisation_pb2.CreateInvitationRequest(email=person.email, role=role)
        code = admin.invitations.CreateInvitation(request).code
        accept = organisation_pb2.AcceptInvitationRequest(code=code)
        self.session(person).invitations.AcceptInvitation(accept)
        return self.session(person, admin.profile.organisation)

    def publisher(self) -> Account:
        return self.sign_up(auth_pb2.ROLE_PUBLISHER)

    def upload(self, person: Account, data: bytes, filename: str = "model.onnx") -> str:
        """Uploads an artifact; answers its digest."""
        digest = "sha256:" + hashlib.sha256(data).hexdigest()
        request = storage_pb2.CreateUploadRequest(filename=filename, size_bytes=len(data), digest=digest)
        upload = person.storage.CreateUpload(request).upload
        if upload.state != storage_pb2.Upload.STATE_COMPLETE:

            def chunks() -> Iterator[storage_pb2.WriteUploadRequest]:
                for at in range(0, len(data), 1 << 20):
                    body = httpbody_pb2.HttpBody(data=data[at : at + (1 << 20)])
                    yield storage_pb2.WriteUploadRequest(upload_id=upload.upload_id, offset=at, chunk=body)

            person.storage.WriteUpload(chunks())
            person.storage.CompleteUpload(storage_pb2.CompleteUploadRequest(upload_id=upload.upload_id))
        return digest

    def validated(
        self, person: Account, model: str, digest: str, version: str = "1.0.0", *, batch: int = 0,
        signature: tensor_pb2.Signature | None = None, samples: Sequence[registry_pb2.Sample] = (), **others: Any,
    ) -> registry_pb2.Version:  # fmt: skip
        """Makes a version and waits until its validation has ended, either way. `others`: more InferenceSettings."""
        settings = registry_pb2.InferenceSettings(max_batch_size=batch, **others)
        person.registry.CreateVersion(
            registry_pb2.CreateVersionRequest(
                model=model, version=version, digest=digest, settings=settings, signature=signature, samples=samples
            )
        )
        return self.until_validated(person, model, version)

    def until_validated(self, person: Account, model: str, version: str) -> registry_pb2.Version:
        """The version when its validation has ended, either way."""
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            got = person.registry.GetVersion(registry_pb2.GetVersionRequest(model=model, version=version)).version
            if got.state != registry_pb2.VERSION_STATE_VALIDATING:
                return got  # type: ignore[no-any-return]
            time.sleep(0.05)
        raise TimeoutError(f"{model}@{version} is still validating")

    def publish(
        self, person: Account, graph: bytes, name: str = "", *, version: str = "1.0.0", batch: int = 0,
        price: Mapping[str, int] | None = None, **settings: Any,
    ) -> str:  # fmt: skip
        """Publishes a graph through every step; answers `publisher/name`. `price`: nanos per million, by meter.
        `settings`: more InferenceSettings."""
        name = name or f"m{secrets.token_hex(4)}"
        model = f"{person.profile.organisation}/{name}"
        if version == "1.0.0":
            person.registry.CreateModel(
                registry_pb2.CreateModelRequest(
                    name=name, summary="a test", category="other", task="test", license="MIT"
                )
            )
        got = self.validated(person, model, self.upload(person, graph), version, batch=batch, **settings)
        assert got.state == registry_pb2.VERSION_STATE_DRAFT, got.findings
        if price is not None:
            components = [billing_pb2.PriceComponent(meter=m, nanos_per_million=n) for m, n in price.items()]
            person.billing.SetModelPrice(billing_pb2.SetModelPriceRequest(model=model, components=components))
        self.through_review(person, model, version)
        return model

    def through_review(self, person: Account, model: str, version: str) -> None:
        """From draft to published."""
        person.registry.SubmitVersion(registry_pb2.SubmitVersionRequest(model=model, version=version))
        self.admin().registry.ApproveVersion(registry_pb2.ApproveVersionRequest(model=model, version=version))
        person.registry.PublishVersion(registry_pb2.PublishVersionRequest(model=model, version=version))
