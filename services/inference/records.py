"""Usage records as bytes. What stays the same from call to call is serialised once: in protobuf a message is the
concatenation of its parts (https://protobuf.dev/programming-guides/encoding/#last-one-wins), so a record is that and
the few fields that are the call's own."""

from mercat.usage.v1 import usage_pb2

from services.common.pricing import Rated
from services.common.rpc.context import Call
from services.inference.deployments import Deployment

Units = tuple[tuple[str, int], ...]
_MOST = 10_000  # parts kept


class Records:
    """Makes the records of one worker."""

    def __init__(self, region: str) -> None:
        self._region = region
        self._common: dict[tuple[object, ...], bytes] = {}

    def make(
        self, call: Call, deployment: Deployment, units: Units, cost: int, lease_id: str,
        latency_us: int, rated: Rated | None = None,
    ) -> bytes:  # fmt: skip
        """A UsageRecord of a call; `cost` in nanos, `rated` what it depends on."""
        p = call.principal
        own = usage_pb2.UsageRecord(request_id=call.request_id, latency_us=latency_us)
        key: tuple[object, ...] = (
            deployment.price_id, deployment.version_id, p.user_id, p.key_id, p.org_id, p.test, units, cost, lease_id,
            call.tags, deployment.proto.org_id,
        )  # fmt: skip
        if rated is not None or deployment.measured:
            key, units, cost, rated = _apart(own, key, units, cost, rated, measured=deployment.measured)
        common = self._common.get(key)
        if common is None:
            if len(self._common) >= _MOST:
                self._common.clear()
            proto = deployment.proto
            common = self._common[key] = usage_pb2.UsageRecord(
                org_id=p.org_id, user_id=p.user_id, key_id=p.key_id, model_id=proto.model_id, model=proto.model,
                version=proto.version, publisher_org_id=proto.org_id, units=dict(units), price_id=deployment.price_id,
                cost_nanos=cost, region=self._region, test=p.test, lease_id=lease_id,
                rating=rated.message() if rated is not None else None,
                tags=dict(call.tags),
            ).SerializeToString()  # fmt: skip
        # The arrival is the time inside the id, which is what makes (request_id, timestamp) as unique as request_id.
        seconds, ms = divmod(call.arrived_ms, 1000)
        own.timestamp.seconds, own.timestamp.nanos = seconds, ms * 1_000_000
        return common + own.SerializeToString()


def _apart(
    own: usage_pb2.UsageRecord, key: tuple[object, ...], units: Units, cost: int, rated: Rated | None, *, measured: bool
) -> tuple[tuple[object, ...], Units, int, Rated | None]:
    """Writes what is never twice the same, positions and what is measured, into the call's own fields; the rest."""
    head, tail = key[:6], key[8:]
    if rated is not None and rated.positions:
        own.rating.CopyFrom(rated.message())
        own.cost_nanos, cost, rated = cost, 0, None
    elif rated is not None:
        tail += rated[1:]
    if measured:
        own.cost_nanos, cost = own.cost_nanos or cost, 0
        own.units.update(units)
        units = ()
    return (*head, units, cost, *tail), units, cost, rated


def batch(records: list[bytes], worker_id: str) -> bytes:
    """A UsageBatch of serialised records."""
    parts: list[bytes] = []
    for record in records:
        parts += (b"\x0a", _varint(len(record)), record)  # field 1, length-delimited
    name = worker_id.encode()
    return b"".join([*parts, b"\x12", _varint(len(name)), name])  # field 2


def _varint(value: int) -> bytes:
    if value < 0x80:
        return bytes((value,))
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)
