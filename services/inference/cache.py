"""Answers of deterministic models, kept by what was asked: in this worker's memory, then in Redis for all workers.

The key is a BLAKE2b hash over the version, its artifact's digest, the outputs wanted and every input's name, datatype,
shape and bytes, so that a new version finds nothing of the old one. Equal calls at once wait for the first."""

import asyncio
import hashlib
import logging
import struct
from collections import OrderedDict
from collections.abc import Mapping, Sequence

import numpy as np
from mercat.inference.v1 import inference_pb2
from redis.asyncio import Redis
from redis.exceptions import RedisError

from services.common.tensors import DTYPES, Array, to_raw

log = logging.getLogger(__name__)
Outputs = Mapping[str, Array]
_LARGEST = 1 << 20  # bytes of an answer that is kept
_PATIENCE = 0.05  # seconds that Redis may take; running the model is an answer too
_AWAY = 1.0  # seconds that Redis is not asked after it failed


def key_of(version_id: str, digest: str, inputs: Mapping[str, Array], outputs: Sequence[str]) -> bytes:
    """What two calls share that must get the same answer."""
    hasher = hashlib.blake2b(f"{version_id}\0{digest}".encode(), digest_size=32)
    for name in sorted(outputs):
        hasher.update(b"\0o" + name.encode())
    for name in sorted(inputs):
        array = inputs[name]
        hasher.update(f"\0i{name}\0{array.dtype.str}\0{array.shape}\0".encode())
        hasher.update(to_raw(array) if array.dtype.kind == "O" else np.ascontiguousarray(array).data)
    return hasher.digest()


class ResponseCache:
    """One worker's. `most_bytes` bounds what it keeps in memory; Redis evicts by its own settings and by time."""

    def __init__(self, redis: "Redis", most_bytes: int) -> None:
        self._redis = redis
        self._most_bytes = most_bytes
        self._bytes = 0
        self._kept: OrderedDict[bytes, tuple[float, int, Outputs]] = OrderedDict()  # until, bytes, outputs
        self._flights: dict[bytes, asyncio.Future[Outputs | None]] = {}
        self._away_until = 0.0
        self._writes: set[asyncio.Task[None]] = set()

    def get(self, key: bytes) -> Outputs | None:
        """From memory."""
        entry = self._kept.get(key)
        if entry is None:
            return None
        if entry[0] < asyncio.get_running_loop().time():
            self._forget(key)
            return None
        self._kept.move_to_end(key)
        return entry[2]

    async def find(self, key: bytes) -> Outputs | None:
        """From an equal call that is under way, or from Redis. None: run the model, and then call `settle`; equal calls
        wait for that."""
        while (flight := self._flights.get(key)) is not None:
            outputs = await asyncio.shield(flight)
            if outputs is not None:
                return outputs
        self._flights[key] = asyncio.get_running_loop().create_future()
        try:
            found = await self._ask(key)
        except BaseException:
            self.settle(key, None, 0)
            raise
        if found is not None:
            until, outputs = found
            self._keep(key, outputs, until)
            self.settle(key, outputs, 0)
            return outputs
        return None

    def settle(self, key: bytes, outputs: Outputs | None, ttl: float) -> None:
        """The call that was to run the model has ended: with its answer, kept for `ttl` seconds, or without."""
        flight = self._flights.pop(key, None)
        if outputs is not None and ttl:
            outputs = {name: np.array(array) for name, array in outputs.items()}  # not the batch they are a part of
            if sum(_size(array) for array in outputs.values()) <= _LARGEST:
                self._keep(key, outputs, ttl)
                task = asyncio.get_running_loop().create_task(self._tell(key, outputs, ttl))
                self._writes.add(task)
                task.add_done_callback(self._writes.discard)
        if flight is not None and not flight.done():
            flight.set_result(outputs)

    def _keep(self, key: bytes, outputs: Outputs, ttl: float) -> None:
        self._forget(key)
        size = sum(_size(array) for array in outputs.values()) + 200
        self._kept[key] = (asyncio.get_running_loop().time() + ttl, size, outputs)
        self._bytes += size
        while self._bytes > self._most_bytes:
            self._forget(next(iter(self._kept)))

    def _forget(self, key: bytes) -> None:
        entry = self._kept.pop(key, None)
        if entry is not None:
            self._bytes -= entry[1]

    async def _ask(self, key: bytes) -> tuple[float, Outputs] | None:
        """What Redis has, and for how many seconds more."""
        loop = asyncio.get_running_loop()
        if loop.time() < self._away_until:
            return None
        name = _name(key)
        try:
            async with asyncio.timeout(_PATIENCE):
                data = await self._redis.get(name)
                left = await self._redis.pttl(name) if data is not None else 0
        except (RedisError, OSError, TimeoutError) as e:
            log.warning("responses are cached in memory only: %s", str(e) or type(e).__name__)
            self._away_until = loop.time() + _AWAY
            return None
        return (left / 1000, _read(bytes(data))) if isinstance(data, bytes) and left > 0 else None

    async def _tell(self, key: bytes, outputs: Outputs, ttl: float) -> None:
        if asyncio.get_running_loop().time() < self._away_until:
            return
        try:
            async with asyncio.timeout(1):
                await self._redis.set(_name(key), _write(outputs), px=int(ttl * 1000))
        except (RedisError, OSError, TimeoutError) as e:
            log.warning("a response was not cached in Redis: %s", str(e) or type(e).__name__)


def _name(key: bytes) -> bytes:
    return b"response:" + key


def _size(array: Array) -> int:
    return len(to_raw(array)) if array.dtype.kind == "O" else array.nbytes


def _write(outputs: Outputs) -> bytes:
    message = inference_pb2.PredictResponse()
    for name, array in outputs.items():
        datatype = next((d for d, dtype in DTYPES.items() if dtype == array.dtype), "BYTES")
        message.outputs.add(name=name, datatype=datatype, shape=array.shape, raw=to_raw(array))
    return message.SerializeToString()


def _read(data: bytes) -> Outputs:
    outputs: dict[str, Array] = {}
    for tensor in inference_pb2.PredictResponse.FromString(data).outputs:
        if tensor.datatype == "BYTES":
            outputs[tensor.name] = _strings(tensor.raw, tuple(tensor.shape))
        else:
            outputs[tensor.name] = np.frombuffer(tensor.raw, DTYPES[tensor.datatype]).reshape(tensor.shape)
    return outputs


def _strings(raw: bytes, shape: tuple[int, ...]) -> Array:
    found: list[bytes] = []
    at = 0
    while at < len(raw):
        (length,) = struct.unpack_from("<I", raw, at)
        found.append(raw[at + 4 : at + 4 + length])
        at += 4 + length
    array = np.empty(len(found), object)
    array[:] = found
    return array.reshape(shape)
