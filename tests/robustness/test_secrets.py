"""Case 30: secrets planted in requests, and in requests that fail, are found in no log, trace, event, row, dump or
command line."""

import base64
import json
import os
import secrets
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import grpc
import httpx
import psutil
import pyotp
import pytest
from aiosmtpd.controller import Controller
from mercat.auth.v1 import auth_pb2, mfa_pb2, sessions_pb2, signin_pb2
from mercat.notification.v1 import webhooks_pb2
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2_grpc
from redis import Redis

from tests import graphs
from tests.integration.common.test_tracing import Collector
from tests.integration.signin.people import Mailbox, Member
from tests.platform import USD, Platform, free_port

pytestmark = pytest.mark.case

# What is the home's own to keep: files of its owner, of which the rest of the home must know nothing.
OWN = ("secrets", "connection.json", "tls")
MORE = 64  # bytes before and after what was found, to say where


@dataclass
class Planted:
    """Secrets by what they are, each unlike anything else."""

    secrets: dict[str, str] = field(default_factory=dict)

    def new(self, what: str, prefix: str = "") -> str:
        return self.add(what, f"{prefix}planted-{secrets.token_hex(12)}")

    def add(self, what: str, text: str) -> str:
        self.secrets[what] = text
        return text

    def forms(self) -> dict[bytes, str]:
        """What to look for: each as it is, in hex, and the three ways base64 can begin within."""
        found: dict[bytes, str] = {}
        for what, text in self.secrets.items():
            data = text.encode()
            found[data] = what
            found[data.hex().encode()] = f"{what}, in hex"
            for skipped in range(3):
                coded = base64.b64encode(data[skipped:])
                found[coded[: len(coded) // 4 * 4 - 4]] = f"{what}, in base64"
        return found


@pytest.fixture(scope="module")
def collector() -> Iterator[tuple[Collector, str]]:
    server, made = grpc.server(ThreadPoolExecutor(2)), Collector()
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(made, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield made, f"http://127.0.0.1:{port}"
    server.stop(None).wait()


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory, collector: tuple[Collector, str]) -> Iterator[Platform]:
    """A platform that says all it can: every line of its logs, every trace, mail by SMTP."""
    box = Mailbox(free_port())
    controller = Controller(box, hostname="127.0.0.1", port=box.port)
    controller.start()
    env = {
        **box.settings, "MERCAT_TRACE_ENDPOINT": collector[1], "MERCAT_TRACE_RATIO": "1", "MERCAT_LOG_LEVEL": "DEBUG",
        "MERCAT_VERIFY_EMAIL": "never", "MERCAT_STRIPE_WEBHOOK_SECRET": f"whsec_{secrets.token_hex(8)}",
        "MERCAT_SMTP_PASSWORD": "",
    }  # fmt: skip
    with Platform(tmp_path_factory.mktemp("watched") / "home", env=env) as running:
        running.mailbox = box  # type: ignore[attr-defined]
        yield running
    controller.stop()


def quietly(call: object, *args: object, **kwargs: object) -> object:
    """An answer, or the error in its place."""
    try:
        return call(*args, **kwargs)  # type: ignore[operator]
    except (grpc.RpcError, httpx.HTTPError) as error:
        return error


def plant(platform: Platform, planted: Planted) -> None:
    """All kinds of secrets, everywhere a caller can put one, in what succeeds and in what fails."""
    person = platform.sign_up(auth_pb2.ROLE_PUBLISHER, credit=100 * USD)
    # A password, right and wrong, over gRPC and REST.
    name, password = f"t{secrets.token_hex(6)}", planted.new("password")
    email = f"{name}@example.com"
    signed = platform.anonymous.auth.SignUp(
        auth_pb2.SignUpRequest(email=email, username=name, password=password, role=auth_pb2.ROLE_CONSUMER)
    )
    member = Member(platform, email, signed.session, signed.profile).again(password)
    member.account.top_up(USD)
    planted.add("access token", member.session.access_token)
    planted.add("refresh token", member.session.refresh_token)
    wrong = planted.new("wrong password")
    quietly(platform.anonymous.auth.SignIn, auth_pb2.SignInRequest(email=email, password=wrong))
    # Keys: of an answer that is kept for its idempotency key, and one that is asked for in vain.
    made = member.account.auth.CreateApiKey(
        auth_pb2.CreateApiKeyRequest(name="k"), metadata=[("idempotency-key", secrets.token_hex(8))]
    )
    planted.add("API key", made.secret)
    # A webhook's, which signs a delivery that fails.
    hook = webhooks_pb2.CreateWebhookEndpointRequest(url="https://example.invalid/")
    hooked = member.account.webhooks.CreateWebhookEndpoint(hook)
    planted.add("secret of a webhook", hooked.secret.removeprefix("whsec_"))
    member.account.webhooks.SendTestEvent(webhooks_pb2.SendTestEventRequest(endpoint_id=hooked.endpoint.endpoint_id))
    # A second factor.
    secret = planted.add("secret of the second factor", member.second.EnrollTotp(mfa_pb2.EnrollTotpRequest()).secret)
    confirmed = member.second.ConfirmTotp(mfa_pb2.ConfirmTotpRequest(code=pyotp.TOTP(secret).now()))
    for number, code in enumerate(confirmed.recovery_codes):
        planted.add(f"recovery code {number}", code)
    member.again(password, confirmed.recovery_codes[0])
    quietly(member.sessions.Reauthenticate, sessions_pb2.ReauthenticateRequest(code=planted.new("wrong code")))
    # A code by mail, and a new password by it.
    nobody = Member(platform, email, auth_pb2.Session(), signed.profile)
    nobody.passwords.RequestPasswordReset(signin_pb2.RequestPasswordResetRequest(email=email))
    box: Mailbox = platform.mailbox  # type: ignore[attr-defined]
    code = planted.add("code by mail", box.code(email, subject="password"))
    changed = planted.new("new password")
    quietly(nobody.passwords.ResetPassword, signin_pb2.ResetPasswordRequest(code=code, password=changed))
    rest(platform, planted, made.secret)
    # What is sent to a model, in a call that succeeds and in calls that fail.
    model = platform.publish(person, graphs.labelled(), batch=4, price={"requests": 10**9})
    infer(platform, planted, model, made.secret)
    broken(platform, planted, email)


def rest(platform: Platform, planted: Planted, key: str) -> None:
    """Over HTTP: in headers, in the path, in the query, in bodies that are none."""
    with httpx.Client(base_url=platform.rest, timeout=10) as client:
        signup = {"email": "not an address", "username": "u", "password": planted.new("password of a bad request")}
        client.post("/v1/signup", json=signup)
        client.post("/v1/signup", content=f'{{"password": "{planted.new("broken JSON")}", '.encode())
        client.post("/v1/signup", json={"password": {"nested": planted.new("a wrong type")}})
        client.post(f"/v1/signup?password={planted.new('query')}", json={})
        client.get(f"/v1/models?accessToken={planted.new('query of a token')}")
        client.get("/v1/me", headers={"authorization": f"Bearer {planted.new('bearer')}"})
        client.get("/v1/me", headers={"authorization": f"Bearer mk_live_{planted.new('API key that is none')}"})
        client.get("/v1/me", headers={"authorization": f"Basic {planted.new('basic')}"})
        client.get("/v1/me", headers={"x-api-key": planted.new("x-api-key")})
        client.get("/v1/me", headers={"cookie": f"session={planted.new('cookie')}"})
        client.get("/v1/me", headers={"mercat-internal-token": planted.new("internal token")})
        client.post("/v1/sessions:refresh", json={"refreshToken": planted.new("unknown refresh token")})
        signature = f"t={int(time.time())},v1={planted.new('signature')}"
        client.post(
            "/v1/stripe/webhooks", content=json.dumps({"client_secret": planted.new("webhook")}),
            headers={"stripe-signature": signature, "content-type": "application/json"},
        )  # fmt: skip
        openai = {"model": "no/body", "messages": [{"role": "user", "content": planted.new("prompt")}], "stop": 5}
        client.post("/openai/v1/chat/completions", json=openai, headers={"authorization": f"Bearer {key}"})
        client.post(
            "/openai/v1/chat/completions", json=openai, headers={"authorization": f"Bearer {planted.new('openai key')}"}
        )


def infer(platform: Platform, planted: Planted, model: str, key: str) -> None:
    with httpx.Client(base_url=platform.rest, headers={"authorization": f"Bearer {key}"}, timeout=10) as client:
        for what, shape in (("input", [1]), ("input of a wrong shape", [9, 9])):
            inputs = [
                {"name": "x", "data": [[1, 2, 3, 4]]}, {"name": "text", "data": [planted.new(what)], "shape": shape},
            ]  # fmt: skip
            answer = client.post(f"/v1/models/{model}:predict", json={"inputs": inputs})
            assert answer.status_code == (200 if shape == [1] else 400), answer.text
        client.post(f"/v1/models/{model}:predict", json={"inputs": [{"name": "x", "data": [planted.new("bad input")]}]})


def broken(platform: Platform, planted: Planted, email: str) -> None:
    """While PostgreSQL is killed, and comes back: what fails then is logged at its loudest."""
    died = platform.kill("postgres")
    with httpx.Client(base_url=platform.rest, timeout=30) as client:
        for number in range(8):
            body = {"email": email, "password": planted.new(f"password {number} while the database is away")}
            quietly(client.post, "/v1/signin", json=body)
    platform.until_ready("postgres", died)


def files(home: Path) -> Iterator[Path]:
    for folder, _, names in os.walk(home):
        inside = Path(folder).relative_to(home)
        if inside.parts[:1] and inside.parts[0] in OWN:
            continue
        for name in names:
            path = Path(folder) / name
            if path.is_file() and not path.is_symlink() and not (len(inside.parts) == 0 and name in OWN):
                yield path


def search(data: bytes, forms: dict[bytes, str], where: str) -> list[str]:
    found = []
    for form, what in forms.items():
        at = data.find(form)
        if at >= 0:
            around = data[max(0, at - MORE) : at + len(form) + MORE]
            found.append(f"{what} in {where}: {around!r}")
    return found


def test_planted_secrets_are_found_nowhere(watched: Platform, collector: tuple[Collector, str]) -> None:
    planted = Planted()
    witness = secrets.token_hex(12)  # what is meant to be found, so that the search is one
    plant(watched, planted)
    watched.sign_up(name=f"w{witness}")
    time.sleep(3)  # for traces and outboxes
    forms, seen, found = planted.forms(), set(), []
    assert len(planted.secrets) > 40
    for path in [*files(watched.home), watched.home.parent / f"{watched.home.name}.up.log"]:
        try:
            data = path.read_bytes()
        except FileNotFoundError:  # the index of searches has merged it into another meanwhile
            continue
        where = str(path.relative_to(watched.home.parent))
        found += search(data, forms, where)
        if witness.encode() in data:
            seen.add(path.relative_to(watched.home).parts[0])
    assert "postgres" in seen  # tables, and the log of writes
    spans = "\n".join(str(span) for _, span in collector[0].spans).encode()
    assert b"mercat.auth.v1.AuthService/SignUp" in spans
    assert b'"/v1/signup"' in spans  # of the address as much as may be said
    found += search(spans, forms, "traces")
    redis = Redis.from_url(watched.redis_url())
    for key in redis.scan_iter(count=1000):
        found += search(key + (redis.dump(key) or b""), forms, "Redis")
    redis.close()
    supervisor = psutil.Process(watched.pids()["control"]).parent()
    assert supervisor is not None
    own = [watched.admin_password, (watched.home / "secrets" / "internal-token").read_text().strip()]
    for process in [supervisor, *supervisor.children(recursive=True)]:
        command = " ".join(process.cmdline()).encode()
        found += search(command, forms | {text.encode(): "a secret of the home" for text in own}, "a command line")
    assert found == [], "\n".join(found[:20])


def test_the_logs_hold_no_secret_of_the_home(watched: Platform) -> None:
    """Nor does what `mercat config` prints."""
    own = {path.read_bytes().strip(): path.name for path in (watched.home / "secrets").iterdir() if path.is_file()}
    own = {
        line: name
        for text, name in own.items()
        for line in text.splitlines()
        if len(line) > 20 and b"-----" not in line
    }
    own[watched.admin_password.encode()] = "the administrator's password"
    for path in (watched.home / "logs").iterdir():
        assert search(path.read_bytes(), own, path.name) == []
    said = watched.command("config", "--json").stdout.encode()
    assert search(said, own, "mercat config") == []


def test_a_process_that_is_ended_hard_leaves_no_dump(watched: Platform) -> None:
    died = watched.pids()["control"]
    before = subprocess.run(
        ["find", str(watched.home), "-name", "core*"], capture_output=True, text=True, check=True
    ).stdout
    os.kill(died, 6)  # SIGABRT, which writes the whole memory out where that is allowed
    watched.until_ready("control", died)
    after = subprocess.run(
        ["find", str(watched.home), "-name", "core*"], capture_output=True, text=True, check=True
    ).stdout
    assert after == before
    limit = psutil.Process(watched.pids()["control"]).rlimit(psutil.RLIMIT_CORE)
    assert limit[0] == 0
