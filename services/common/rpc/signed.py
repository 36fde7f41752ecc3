"""Whether a call is signed as its key demands (RFC 9421). Asked of keys that have signing keys, and of no others.

What a signature is of is what the client sent: over gRPC the call itself, over REST the request, which the web edge
tells (`mercat-edge`) when it has found the body to be the one that content-digest is of."""

import time
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

from mercat.auth.v1 import auth_pb2
from redis.asyncio import Redis

from services.common import clock, signatures
from services.common.errors import Unauthenticated
from services.common.rpc.addresses import EDGE_KEY, Addresses
from services.common.scripts import Script
from services.common.signatures import DIGEST, INPUT, SIGNATURE, TAG, BadSignature, Signed

LIFETIME, SKEW = 300, 60  # seconds: that a signature may be old, and that clocks may differ
_NONCE = 8  # characters at least
_MOST = 100_000  # nonces remembered in a process
_NAMES = {
    auth_pb2.SIGNATURE_ALGORITHM_ED25519: signatures.ED25519,
    auth_pb2.SIGNATURE_ALGORITHM_HMAC_SHA256: signatures.HMAC_SHA256,
}


class SignatureMissing(Unauthenticated, reason="SIGNATURE_MISSING"):
    """The key's calls must be signed."""


class SignatureInvalid(Unauthenticated, reason="SIGNATURE_INVALID"):
    """The signature is not one of this call by a signing key of this API key; the sentence says what is wrong."""


class SignatureExpired(Unauthenticated, reason="SIGNATURE_EXPIRED"):
    """The signature is too old, or of the future: make another, with a clock that is right."""


class SignatureReplayed(Unauthenticated, reason="SIGNATURE_REPLAYED"):
    """A call with this nonce came before."""


class Nonces:
    """Those that came. Processes share them in Redis; while that is gone each knows its own."""

    def __init__(self, redis: "Redis") -> None:
        self._script = Script(redis, "services.common.rpc", "nonces.lua")
        self._seen: OrderedDict[str, float] = OrderedDict()

    async def use(self, name: str, seconds: float) -> bool:
        """False when it was used within the seconds given then."""
        now = time.monotonic()
        if self._seen.get(name, 0.0) > now:
            return False
        while self._seen and (next(iter(self._seen.values())) <= now or len(self._seen) >= _MOST):
            self._seen.popitem(last=False)
        self._seen[name] = now + seconds
        answer = await self._script.run([f"nonce:{name}"], [int(seconds * 1000)])
        return answer is None or bool(int(answer[0]))


class Signatures:
    """Checks calls."""

    def __init__(self, nonces: Nonces | None, addresses: Addresses) -> None:
        self._nonces = nonces
        self._addresses = addresses

    async def check(
        self, principal: auth_pb2.Principal, metadata: Mapping[str, str | bytes], context: Any, *, streams_in: bool
    ) -> None:
        """`streams_in`: there is no body when the call begins, so that none is signed.

        Raises:
            SignatureMissing, SignatureInvalid, SignatureExpired, SignatureReplayed.
        """
        if INPUT not in metadata:
            if principal.signing.required:
                raise SignatureMissing("calls with this key must be signed; see docs/signing.md")
            return
        try:
            found = signatures.read(str(metadata[INPUT]), str(metadata.get(SIGNATURE, "")), TAG)
            if found:
                await self._check(found[0], principal, metadata, context, streams_in)
            elif principal.signing.required:
                raise SignatureMissing(f'no signature has the parameter tag="{TAG}"')
        except BadSignature as e:
            raise SignatureInvalid(str(e)) from None

    async def _check(
        self, signed: Signed, principal: auth_pb2.Principal, metadata: Mapping[str, str | bytes], context: Any,
        streams_in: bool,
    ) -> None:  # fmt: skip
        params = signed.params
        key = next((k for k in principal.signing.keys if k.signing_key_id == params.get("keyid")), None)
        if key is None:
            raise SignatureInvalid("keyid is no signing key of this API key")
        algorithm = _NAMES[key.algorithm]
        if params.get("alg", algorithm) != algorithm:
            raise SignatureInvalid(f"the signing key is one for {algorithm}")
        values, wanted, body = self._values(metadata, context, streams_in)
        if missing := [name for name in wanted if name not in signed.components]:
            raise SignatureInvalid(f"the signature must cover {', '.join(missing)}")
        left = _left(params)
        nonce = params.get("nonce")
        if not isinstance(nonce, str) or len(nonce) < _NONCE:
            raise SignatureInvalid(f"the parameter nonce must have {_NONCE} characters or more")
        text = signatures.base(signed.components, params, values)
        if not signatures.verify(algorithm, key.key, text, signed.signature):
            raise SignatureInvalid("the signature is not one of this call")
        if body is not None:
            signatures.check_digest(values[DIGEST], body)
        if self._nonces is not None and not await self._nonces.use(f"{key.signing_key_id}:{nonce}", left):
            raise SignatureReplayed("a call with this nonce came before")

    def _values(
        self, metadata: Mapping[str, str | bytes], context: Any, streams_in: bool
    ) -> tuple[dict[str, str], list[str], bytes | None]:
        """The components of a call, those that must be covered, and the body that the digest must be of, where that is
        not known already."""
        values = {name: str(value).strip() for name, value in metadata.items()}
        wanted = ["@method", "@authority", "@path"]
        said = self._addresses.edge.read(str(metadata[EDGE_KEY])) if EDGE_KEY in metadata else None
        if said is None or "method" not in said:
            values |= {"@method": "POST", "@path": context.path, "@authority": signatures.authority(context.authority)}
            return (values, wanted, None) if streams_in else (values, [*wanted, DIGEST], context.raw)
        values |= said["headers"]
        values |= {"@method": said["method"], "@path": said["path"]}
        values["@authority"] = signatures.authority(said["authority"])
        values["@query"] = f"?{said['query']}"
        wanted += ["@query"] if said["query"] else []
        return values, [*wanted, DIGEST] if said["body"] else wanted, None


def _left(params: Mapping[str, Any]) -> float:
    """Seconds for which the signature can be used, with what clocks may differ. Raises SignatureInvalid,
    SignatureExpired."""
    now, created, expires = clock.time_ns() / 1e9, params.get("created"), params.get("expires")
    if not isinstance(created, int) or not isinstance(expires, int | None):
        raise SignatureInvalid("the parameters created and expires are seconds since 1970, and created must be there")
    end = min(created + LIFETIME, expires if expires is not None else created + LIFETIME)
    if created > now + SKEW:
        raise SignatureExpired("the signature is of the future; set your clock")
    if now > end:
        raise SignatureExpired("the signature is too old; make one for each call")
    return end - now + SKEW
