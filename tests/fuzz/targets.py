"""What is fuzzed: a function of bytes that ends, or raises what it documents, and seeds to begin from. Anything else
that it raises is a crash, and so is what it must never accept."""

import asyncio
import atexit
import base64
import contextlib
import hashlib
import hmac
import ipaddress
import json
import shutil
import socket
import struct
import tempfile
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import quote

import grpc
import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from google.protobuf.message import DecodeError
from mercat.billing.v1 import billing_pb2
from mercat.common.v1 import tensor_pb2
from mercat.inference.v1 import inference_pb2
from tritonclient.grpc import service_pb2

from gateway_rest import contracts, transcode
from gateway_rest.errors import Refusal
from gateway_rest.openai.calls import parsed
from gateway_rest.openai.chat import ChatBody
from gateway_rest.openai.errors import Invalid
from gateway_rest.paths import Router, normal
from gateway_rest.tus import headers
from services.auth import keys
from services.auth.tokens import Proof, Signer
from services.billing.payments import signature
from services.common import egress, predict, receipts
from services.common.errors import CredentialInvalid, MercatError
from services.common.rpc.http2 import frames
from services.common.rpc.http2.call import Call, Refused
from services.common.rpc.http2.connection import Connection, Limits
from services.common.rpc.policy import validate
from services.common.signing import SigningKey
from services.common.tensors import Signature
from services.inference import kserve
from tests.fuzz import cards, credentials, files
from tests.fuzz.target import Target, text

NOW = datetime(2026, 5, 1, tzinfo=UTC)


class _Clock:
    def now(self) -> datetime:
        return NOW


def api_key() -> Target:
    made = [keys.generate(test=test) for test in (False, True)]

    def run(data: bytes) -> None:
        said = text(data)
        if keys.well_formed(said):
            assert len(said) == len(made[0])
            assert keys.digest(said) != said.encode()
            assert said.startswith(keys.prefix(said))

    return Target(run, [key.encode() for key in made], 256)


def access_token() -> Target:
    folder = Path(tempfile.mkdtemp(prefix="mercat-fuzz-"))  # looked at as long as the target is run
    atexit.register(shutil.rmtree, folder)
    path = folder / "jwt.pem"
    path.touch(0o600)
    key = Ed25519PrivateKey.from_private_bytes(bytes(32))
    path.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    signer = Signer(path, _Clock(), "https://mercat.example")  # type: ignore[arg-type]
    proof = Proof("usr_1", "ses_1", NOW, second_factor=True, org_id="org_1")
    good, _ = signer.sign(proof)
    head, body, _ = good.split(".")
    none = base64.urlsafe_b64encode(b'{"alg":"none","typ":"at+jwt"}').decode().rstrip("=")

    def run(data: bytes) -> None:
        try:
            found, _ = signer.check(text(data))
        except CredentialInvalid:
            return
        assert found == proof  # nothing but what was signed

    return Target(run, [good.encode(), f"{none}.{body}.".encode(), f"{head}.{body}.".encode()], 2048)


def receipt() -> Target:
    key = SigningKey.of(Ed25519PrivateKey.from_private_bytes(b"\1" * 32))
    said = billing_pb2.Receipt(request_id="req_1", model="a/b", version="1.0.0", units={"rows": 3}, cost_nanos=3)
    good = receipts.sign(said, key, NOW)
    known = [key.public_jwk()]

    def run(data: bytes) -> None:
        try:
            found = receipts.verify(text(data), known)
        except receipts.NotGenuine:
            return
        found.ClearField("signed")
        assert found == said

    return Target(run, [good.encode()], 2048)


def stripe() -> Target:
    secret, at = "whsec_fuzz", 1_800_000_000
    body = b'{"id":"evt_1","type":"payment_intent.succeeded"}'
    signed = hmac.new(secret.encode(), str(at).encode() + b"." + body, hashlib.sha256).hexdigest()
    good = f"t={at},v1={signed}".encode() + b"\n" + body

    def run(data: bytes) -> None:
        header, _, payload = data.partition(b"\n")
        try:
            signature.verify(payload, text(header), [secret], at)
        except signature.NotGenuine:
            return
        assert payload == body

    return Target(run, [good], 1024)


def _signature() -> Signature:
    shapes = {"x": ("FP32", [-1, 2]), "n": ("INT64", [1]), "s": ("BYTES", [-1]), "b": ("BOOL", [-1])}
    inputs = [tensor_pb2.TensorSpec(name=n, datatype=d, shape=s) for n, (d, s) in shapes.items()]
    outputs = [tensor_pb2.TensorSpec(name="y", datatype="FP32", shape=[-1])]
    return Signature(tensor_pb2.Signature(inputs=inputs, outputs=outputs))


def _arrays(found: "dict[str, Any]") -> None:
    for array in found.values():
        assert isinstance(array, np.ndarray)
        assert array.size <= 1 << 22


def kserve_request() -> Target:
    known = _signature()
    good = service_pb2.ModelInferRequest(model_name="a/b")
    for name, datatype, shape, raw in (
        ("x", "FP32", [1, 2], bytes(8)), ("n", "INT64", [1], bytes(8)),
        ("s", "BYTES", [1], struct.pack("<I", 2) + b"ab"), ("b", "BOOL", [2], b"\0\1"),
    ):  # fmt: skip
        good.inputs.add(name=name, datatype=datatype, shape=shape)
        good.raw_input_contents.append(raw)
    typed = service_pb2.ModelInferRequest(model_name="a/b")
    typed.inputs.add(name="x", datatype="FP32", shape=[1, 2]).contents.fp32_contents.extend([1, 2])

    def run(data: bytes) -> None:
        try:
            request = service_pb2.ModelInferRequest.FromString(data)
        except DecodeError:
            return
        with contextlib.suppress(MercatError):
            kserve.wanted(request, known)
            _arrays(kserve.read_inputs(request, known))

    return Target(run, [good.SerializeToString(), typed.SerializeToString()], 2048)


def predict_request() -> Target:
    known = _signature()
    good = inference_pb2.PredictRequest(model="a/b")
    good.inputs.add(name="x", datatype="FP32", shape=[1, 2], raw=bytes(8))
    nested = inference_pb2.PredictRequest(model="a/b")
    nested.inputs.add(name="x").data.append([1, 2.5])
    nested.inputs.add(name="s").data.append("text")

    def run(data: bytes) -> None:
        try:
            request = inference_pb2.PredictRequest.FromString(data)
        except DecodeError:
            return
        with contextlib.suppress(MercatError):
            validate(request)
            _arrays(predict.read_inputs(request, known))

    return Target(run, [good.SerializeToString(), nested.SerializeToString()], 2048)


def rest() -> Target:
    """The first byte chooses the call; then its query, a line feed, and its body."""
    all_ = [b for b in contracts.bindings() if not b.takes_bytes and not b.method.client_streaming]

    def run(data: bytes) -> None:
        if not data:
            return
        chosen = all_[data[0] % len(all_)]
        query, _, body = data[1:].partition(b"\n")
        with contextlib.suppress(Refusal):
            message = transcode.request(chosen, body, quote(query, safe="=&%.+[]"), {})
            with contextlib.suppress(MercatError):
                validate(message)

    bodies = [
        b'{"inputs":[{"name":"x","data":[[1,2.5,true,null,"a"]],"raw":"AAA="}],"model":"a/b"}',
        b'{"email":"a@b.c","username":"u","password":"p","role":"ROLE_CONSUMER"}',
        b'{"name":"k","scopes":["a"],"expiresAt":"2030-01-01T00:00:00Z","limit":{"rate":1}}',
        b'{"amountNanos":"1000000000","timeout":"3.5s","metadata":{"a":{"b":[1]}}}',
    ]
    queries = [b"", b"pageSize=5&pageToken=abc", b"view=FULL&filter=a%20b"]
    seeds = [bytes([n]) + queries[n % 3] + b"\n" + bodies[n % 4] for n in range(0, min(256, len(all_)), 7)]
    return Target(run, seeds, 2048)


def path() -> Target:
    router = Router((b.verb, b.template, b) for b in contracts.bindings())

    def run(data: bytes) -> None:
        with contextlib.suppress(ValueError):
            plain = normal(data.decode("latin-1"))
            assert "/../" not in plain
            router.match("GET", plain)
            router.match("POST", plain)

    return Target(run, [b"/v1/models/a/b:predict", b"/v1//me/%2e%2e/x", b"/v1/keys/key_1%2f..:revoke"], 512)


def openai() -> Target:
    def run(data: bytes) -> None:
        with contextlib.suppress(Invalid, Refusal):
            parsed(data, ChatBody, ()).request()

    body = {
        "model": "a/b", "messages": [{"role": "user", "content": [{"type": "text", "text": "hi"}]}], "stream": True,
        "stream_options": {"include_usage": True}, "temperature": 0.5, "max_tokens": 5, "stop": ["x"], "n": 1,
        "logit_bias": {"5": -1}, "response_format": {"type": "json_schema", "json_schema": {"schema": {}}},
    }  # fmt: skip
    return Target(run, [json.dumps(body).encode()], 2048)


def tus() -> Target:
    """The headers of tus."""

    def run(data: bytes) -> None:
        said = data.decode("latin-1")
        for read in (headers.metadata, lambda value: headers.number(value, "upload-length")):
            with contextlib.suppress(Refusal):
                read(said)

    return Target(run, [b"filename bS5vbm54,digest c2hhMjU2OmFi", b"name YQ==, empty", b"1234567"], 512)


class _Transport:
    """Where a connection writes to nobody."""

    def __init__(self) -> None:
        self.closed = False

    def __getattr__(self, name: str) -> Callable[..., Any]:
        return lambda *args, **kwargs: None

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return ("127.0.0.1", 1) if name == "peername" else default

    def is_closing(self) -> bool:
        return self.closed

    def get_write_buffer_size(self) -> int:
        return 0


class _Loop:
    """An event loop that never turns: what is to happen later in it does not."""

    def __init__(self) -> None:
        self._real = asyncio.get_running_loop()

    def call_soon(self, *args: Any) -> None:
        return None

    def call_at(self, when: float, *args: Any) -> Any:
        return SimpleNamespace(cancel=lambda: None)

    def time(self) -> float:
        return 0.0

    def create_future(self) -> "asyncio.Future[None]":
        return self._real.create_future()


def http2() -> Target:
    """What a peer sends on one connection, whose calls are all refused when they are there."""
    limits = Limits(message=1 << 16, streams=100)

    def refuse(call: Call) -> None:
        raise Refused(grpc.StatusCode.UNIMPLEMENTED, "nothing is here")

    def run(data: bytes) -> None:
        open_: set[Connection] = set()
        connection = Connection(limits, refuse, open_)
        connection.loop = _Loop()  # type: ignore[assignment]
        connection.connection_made(_Transport())  # type: ignore[arg-type]
        half = len(data) // 2
        connection.data_received(frames.PREFACE + data[:half])
        connection.data_received(data[half:])
        connection.connection_lost(None)
        assert not open_

    block = b"".join(
        frames.literal(n, v)
        for n, v in (
            (b":method", b"POST"),
            (b":path", b"/a/b"),
            (b"content-type", b"application/grpc"),
            (b"a-bin", b"AA"),
        )
    )
    call = frames.frame(frames.HEADERS, frames.END_HEADERS, 1, block)
    call += frames.frame(frames.DATA, frames.END_STREAM, 1, frames.message(b"hello"))
    settings = frames.settings([(frames.INITIAL_WINDOW_SIZE, 100), (frames.MAX_FRAME_SIZE, 1 << 20)])
    ping = frames.frame(frames.PING, 0, 0, bytes(8))
    window = frames.frame(frames.WINDOW_UPDATE, 0, 0, (5).to_bytes(4, "big"))
    reset = frames.frame(frames.RST_STREAM, 0, 1, bytes(4))
    return Target(run, [settings + call, settings + ping + window + call + reset], 2048)


def webhook_url() -> Target:
    """A URL that somebody wants called: where its host is an address, however written, that is a public one."""
    rules = egress.Rules(https=False)

    def run(data: bytes) -> None:
        with contextlib.suppress(egress.EgressRefused):
            url = rules.url(text(data))
            with contextlib.suppress(OSError):
                assert egress.is_public(ipaddress.ip_address(socket.inet_aton(url.host)))
            with contextlib.suppress(ValueError):
                assert egress.is_public(ipaddress.ip_address(url.host))

    hosts = (b"example.com:8443", b"8.8.8.8", b"[2606:4700::1111]:443", b"2130706433", b"0x7f.1", b"[::ffff:127.0.0.1]")
    return Target(run, [b"https://" + host + b"/a?b=c" for host in hosts], 256)


TARGETS: dict[str, Callable[[], Target]] = {
    "api-key": api_key, "access-token": access_token, "receipt": receipt, "stripe": stripe, "kserve": kserve_request,
    "predict": predict_request, "rest": rest, "path": path, "openai": openai,
    "card": cards.card, "attestation": cards.attestation,
    "gguf": files.gguf, "archive": files.archive,
    "http2": http2, "pickle": files.pickled, "tus": tus, "webhook-url": webhook_url,
    "signed-request": credentials.signed_request,
    "content-digest": credentials.content_digest, "structured-field": credentials.structured_field,
    "oauth-token": credentials.oauth("/oauth/token"),
    "oauth-device": credentials.oauth("/oauth/device_authorization"),
    "oauth-introspect": credentials.oauth("/oauth/introspect"), "oauth-revoke": credentials.oauth("/oauth/revoke"),
}  # fmt: skip
