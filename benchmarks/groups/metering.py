"""How fast recorded calls are stored and posted: records as workers publish them, through the stream, usage and the
ledger until the last publisher is credited; beside a plain COPY of the same rows into a table without an index."""

import asyncio
import itertools
import shutil
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime

import asyncpg
import nats
from mercat.billing.v1 import billing_pb2
from mercat.event.v1 import event_pb2
from mercat.registry.v1 import registry_pb2
from mercat.usage.v1 import usage_pb2

from benchmarks import month, processes
from benchmarks.load import Load, LoadError
from benchmarks.measure import Figure, Result, Round, Side, alternate, ratios, summarise
from benchmarks.mercat import Mercat
from benchmarks.stage import Options, Stage
from services.common import ids
from services.common.events import USAGE_SUBJECT
from tests import graphs
from tests.platform import Account

TITLE = "Recorded calls, stored and posted"
_PEOPLE = 20
_RECORDS, _TOGETHER = 200_000, 64  # of a round, and of one message, as at 64 calls in flight
_UNDER_WAY = 64  # messages that are not acknowledged yet
_COST, _EARNED = 1_000, 800  # nanos a call, and what of it is the publisher's
_PATIENCE = 120.0  # seconds
_POSTED, _COPIED = "stored and posted", "plain COPY"
_BALANCE = """
SELECT coalesce(sum(b.balance), 0)::bigint FROM billing.balances b JOIN billing.accounts a ON a.id = b.account_id
WHERE a.org_id = $1 AND a.kind = 'publisher_payable'
"""
_LEASE = """
INSERT INTO billing.leases (id, org_id, worker_id, granted, expires_at, ends_at, created_at)
VALUES ($1, $2, 'benchmark', $3, now() + interval '1 hour', now() + interval '1 hour', now())
"""


def seconds(options: Options) -> float:
    return 70 + options.rounds * 12 + options.month / 15_000


def run(stage: Stage) -> Result:
    result = Result("metering", TITLE)
    with stage.platform("metering") as mercat:
        sides = _Sides(stage, mercat)
        taken = alternate(
            [Side(_POSTED, sides.posted), Side(_COPIED, sides.copied)], seconds=1.0, rounds=stage.options.rounds,
            tell=stage.tell, warm_up=0.2,
        )  # fmt: skip
    result.rows = [summarise(name, rounds, "records/s") for name, rounds in taken.items()]
    rates = [each.load.per_second for each in taken[_POSTED]]
    result.figures.append(Figure("records/s stored, rated and posted", rates, 20_000))
    share = Figure("", ratios(taken[_POSTED], taken[_COPIED]), 1).value
    result.notes.append(
        f"{_RECORDS:,} records of {_PEOPLE} people a round, {_TOGETHER} in a message, until the publisher has the last "
        f"of the money: {share:.2f} of what COPY writes of the same rows, without index, ledger or stream"
    )
    result.figures.append(_month(stage, result))
    return result


def _month(stage: Stage, result: Result) -> Figure:
    """How long the proof of a month takes that has so many calls."""
    calls, home = stage.options.month, stage.folder / "month"
    stage.tell(f"writing a month of {calls:,} calls ...")
    with Mercat(home, threads=1) as mercat:
        size = asyncio.run(month.fill(mercat, calls, stage.tell))
        proof = month.prove(mercat)
    shutil.rmtree(home)
    counted = {f"{s.name} {c.name}": c.rows for s in proof.sections for c in s.counts}
    if not proof.clean or counted["usage calls"] != calls or counted["ledger calls"] != calls:
        raise LoadError(f"the proof of {calls:,} calls is not what was written: {counted}, {proof.discrepancies[:3]}")
    result.notes.append(f"the month: {calls:,} calls of {month.PEOPLE} people, {size / 1e9:.1f} GB with indexes")
    reach = 120 * max(calls / 10_000_000, 0.1)
    return Figure("proof of a month", [proof.took_ms / 1000], reach, "s", at_most=True)


class _Sides:
    def __init__(self, stage: Stage, mercat: Mercat) -> None:
        self._stage, self._mercat = stage, mercat
        price = {"requests": _COST * 1_000_000}
        model = mercat.platform.publish(mercat.publisher, graphs.tiny(), batch=64, price=price)
        self._people = mercat.consumers(_PEOPLE)
        asked = registry_pb2.GetModelRequest(model=model)
        self._model = mercat.publisher.registry.GetModel(asked).model
        priced = billing_pb2.GetModelPriceRequest(model=model)
        self._price = mercat.publisher.billing.GetModelPrice(priced).price.price_id
        self._owner = mercat.publisher.profile.org_id
        self._leases: dict[str, str] = {}
        asyncio.run(self._lease())

    async def _lease(self) -> None:
        """A lease for each person that all rounds fit in, as a worker takes them."""
        c = await asyncpg.connect(self._mercat.postgres())
        rounds = self._stage.options.rounds + 1
        for person in self._people:
            org, lease, room = person.profile.org_id, ids.new("lse"), _COST * _RECORDS * rounds
            async with c.transaction():
                await c.execute(_LEASE, lease, org, room)
                await c.execute("UPDATE billing.wallets SET reserved = reserved + $2 WHERE org_id = $1", org, room)
            self._leases[org] = lease
        await c.close()

    def posted(self, share: float) -> Round:
        """Publishes a round of records and waits for the last of their money."""
        records = self._records(int(_RECORDS * share))
        messages = [
            event_pb2.UsageBatch(records=part, worker_id="benchmark").SerializeToString() for part in _parts(records)
        ]
        pids = self._mercat.platform.pids()
        before, own = processes.cpu_seconds(pids), time.process_time()
        took = asyncio.run(self._publish(messages, len(records)))
        own = time.process_time() - own
        spent = processes.spent(before, processes.cpu_seconds(pids))
        self._mercat.calls += _COST * len(records)
        return Round(Load(len(records) / took, took * 1e3, took * 1e3, {"OK": len(records)}, own), spent)

    async def _publish(self, messages: Sequence[bytes], records: int) -> float:
        client = await nats.connect(self._mercat.platform.nats_url())
        stream, c = client.jetstream(), await asyncpg.connect(self._mercat.postgres())
        wanted = await c.fetchval(_BALANCE, self._owner) + records * _EARNED
        left = iter(messages)

        async def publish() -> None:
            for message in left:
                await stream.publish(USAGE_SUBJECT, message)

        began = time.perf_counter()
        await asyncio.gather(*(publish() for _ in range(_UNDER_WAY)))
        async with asyncio.timeout(_PATIENCE):
            while await c.fetchval(_BALANCE, self._owner) < wanted:  # noqa: ASYNC110 - nobody tells
                await asyncio.sleep(0.02)
        took = time.perf_counter() - began
        await c.close()
        await client.close()
        return took

    def copied(self, share: float) -> Round:
        """Writes as many rows by COPY into an empty table, and commits."""
        records = self._records(int(_RECORDS * share))
        took = asyncio.run(self._copy([_row(record) for record in records]))
        return Round(Load(len(records) / took, took * 1e3, took * 1e3, {"OK": len(records)}))

    async def _copy(self, rows: Sequence[tuple[object, ...]]) -> float:
        c = await asyncpg.connect(self._mercat.postgres())
        await c.execute("CREATE TABLE copied (LIKE usage.usage_records INCLUDING DEFAULTS)")
        began = time.perf_counter()
        await c.copy_records_to_table("copied", records=rows, columns=_COLUMNS)
        took = time.perf_counter() - began
        await c.execute("DROP TABLE copied")
        await c.close()
        return took

    def _records(self, number: int) -> list[usage_pb2.UsageRecord]:
        return [self._record(person) for person in itertools.islice(itertools.cycle(self._people), number)]

    def _record(self, person: Account) -> usage_pb2.UsageRecord:
        org = person.profile.org_id
        record = usage_pb2.UsageRecord(
            request_id=ids.new("req"), org_id=org, user_id=person.profile.user_id, key_id="key_benchmark",
            model_id=self._model.model_id, model=self._model.model, version="1.0.0", publisher_org_id=self._owner,
            units={"requests": 1, "rows": 1}, price_id=self._price, cost_nanos=_COST, latency_us=1_500, region="local",
            lease_id=self._leases[org],
        )  # fmt: skip
        record.timestamp.FromMilliseconds(ids.milliseconds(record.request_id))
        return record


_COLUMNS = (
    "id", "request_id", "timestamp", "org_id", "user_id", "api_key_id", "model_id", "model", "version",
    "publisher_org_id", "tokens_used", "units", "price_id", "cost", "latency_ms", "latency_us", "status_code",
    "region", "test", "lease_id",
)  # fmt: skip


def _row(record: usage_pb2.UsageRecord) -> tuple[object, ...]:
    moment = datetime.fromtimestamp(ids.milliseconds(record.request_id) / 1000, UTC)
    return (
        ids.sibling("use", record.request_id), record.request_id, moment, record.org_id, record.user_id, record.key_id,
        record.model_id, record.model, record.version, record.publisher_org_id, 0, '{"requests": 1, "rows": 1}', "",
        record.cost_nanos, record.latency_us / 1e3, record.latency_us, 0, record.region, False, record.lease_id,
    )  # fmt: skip


def _parts(records: Sequence[usage_pb2.UsageRecord]) -> Iterator[Sequence[usage_pb2.UsageRecord]]:
    for at in range(0, len(records), _TOGETHER):
        yield records[at : at + _TOGETHER]
