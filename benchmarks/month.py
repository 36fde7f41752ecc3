"""A month of calls in the tables of usage and the ledger, as calls would have left them, and the time of its proof.

python -m benchmarks.month --records 200000      a platform of its own, thrown away afterwards
"""

import argparse
import asyncio
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import asyncpg
from mercat.billing.v1 import proof_pb2, proof_pb2_grpc
from mercat.registry.v1 import registry_pb2

from benchmarks.mercat import Mercat
from tests import graphs
from tests.platform import USD

RECORDS = 10_000_000
PEOPLE = 20
_SLICE = 250_000
_INPUT, _OUTPUT = 500, 2_000  # nanos a token
_CREDIT = 9_000 * USD  # of each of the people
_PATIENCE = 3600.0  # seconds

# What ids begin with is looked up: seven digits of 2^15 milliseconds, three of the milliseconds within.
_DIGITS = """
CREATE TEMP TABLE {table} AS SELECT b, (
    SELECT string_agg(substr('0123456789abcdefghjkmnpqrstvwxyz', (b >> s & 31)::integer + 1, 1), '' ORDER BY s DESC)
    FROM generate_series(0, {digits} * 5 - 5, 5) s
) AS digits FROM generate_series($1::bigint, $2::bigint) b
"""
# Accounts of each of the people, and what the digest of a call of theirs is made of, in the order of its columns.
_PARTIES = """
CREATE TEMP TABLE parties AS
SELECT row_number() OVER (ORDER BY w.id) - 1 AS number, w.org_id, w.id AS wallet, p.id AS payable, f.id AS fee,
    w.id || E' $W\\n' || p.id || E' $P\\n' || f.id || ' $F' AS lines
FROM billing.accounts w
CROSS JOIN (SELECT id FROM billing.accounts WHERE org_id = $2 AND kind = 'publisher_payable') p
CROSS JOIN (SELECT id FROM billing.accounts WHERE org_id = '' AND kind = 'platform_fee') f
WHERE w.kind = 'customer_wallet' AND w.org_id = ANY($1::text[])
"""
_CALLS = """
CREATE TEMP TABLE calls AS
SELECT n, ms, h.digits || l.digits || left(md5(n::text), 16) AS key, p.*, i, o, i * 500 + o * 2000 AS cost,
    (i * 500 + o * 2000) / 5 AS kept
FROM (
    SELECT n, $1 + n * $2 / $3 AS ms, n % $6 AS who, 1 + (hashint8(n)::bigint & 2047) AS i,
        1 + (hashint8(n)::bigint >> 12 & 511) AS o
    FROM generate_series($4::bigint, $5::bigint) n
) t JOIN high h ON h.b = t.ms >> 15 JOIN low l ON l.b = t.ms & 32767 JOIN parties p ON p.number = t.who ORDER BY n
"""
_USAGE = """
INSERT INTO usage.usage_records (id, request_id, timestamp, org_id, user_id, api_key_id, model_id, model, version,
    publisher_org_id, tokens_used, units, price_id, cost, latency_ms, latency_us, status_code, region, test, lease_id)
SELECT 'use_' || key, 'req_' || key, to_timestamp(ms / 1000.0), org_id, 'usr_0000000000benchmark000000',
    'key_0000000000benchmark000000', $1, $2, '1.0.0', $3, i + o,
    ('{"requests": 1, "input_tokens": ' || i || ', "output_tokens": ' || o || '}')::jsonb, $4, cost, n % 9000 / 1000.0,
    n % 9000, 0, 'local', false, '' FROM calls ORDER BY n
"""
_POSTINGS = """
INSERT INTO billing.postings (id, cause, kind, digest, created_at, wallet_id, wallet_amount, payable_id, payable_amount,
    fee_id, fee_amount)
SELECT 'pst_' || key, 'req_' || key, 'charge', sha256(convert_to('req_' || key || E'\\ncharge\\n' ||
    replace(replace(replace(lines, '$W', (-cost)::text), '$P', (cost - kept)::text), '$F', kept::text), 'UTF8')),
    to_timestamp(ms / 1000.0 + 0.3), wallet, -cost, payable, cost - kept, fee, kept FROM calls ORDER BY n
"""
_BALANCES = """
INSERT INTO billing.balances AS b (account_id, balance)
SELECT account, sum(amount)::bigint FROM calls
CROSS JOIN LATERAL (VALUES (wallet, -cost), (payable, cost - kept), (fee, kept)) AS t (account, amount) GROUP BY account
ON CONFLICT (account_id) DO UPDATE SET balance = b.balance + excluded.balance
"""
_SPENDING = """
INSERT INTO billing.spending AS s (org_id, day, key_id, model_id, spent)
SELECT org_id, (to_timestamp(ms / 1000.0) AT TIME ZONE 'UTC')::date AS day, 'key_0000000000benchmark000000', $1,
    sum(cost)::bigint FROM calls GROUP BY org_id, day
ON CONFLICT (org_id, day, key_id, model_id) DO UPDATE SET spent = s.spent + excluded.spent
"""

# What can be made anew once all is written, in less time and smaller.
_INDEXES = """
SELECT c.conname, pg_get_constraintdef(c.oid) AS key, i.indrelid::regclass::text AS table,
    i.indexrelid::regclass::text AS name,
    replace(pg_get_indexdef(i.indexrelid), ' ON ONLY ', ' ON ') AS made
FROM pg_index i LEFT JOIN pg_constraint c ON c.conindid = i.indexrelid AND c.conrelid = i.indrelid
WHERE i.indrelid IN ('billing.postings'::regclass, 'usage.usage_records'::regclass) AND NOT i.indisunique
"""


async def fill(mercat: Mercat, records: int, tell: Callable[[str], None]) -> int:
    """Calls of this month, as many each moment; answers the size of the database, bytes. Triggers stay out, so that
    nothing is rolled up beside the proof."""
    publisher, people = mercat.publisher, [mercat.platform.sign_up(credit=_CREDIT) for _ in range(PEOPLE)]
    price = {"input_tokens": _INPUT * 1_000_000, "output_tokens": _OUTPUT * 1_000_000}
    name = mercat.platform.publish(publisher, graphs.tiny(), batch=64, price=price)
    model = publisher.registry.GetModel(registry_pb2.GetModelRequest(model=name)).model
    now = datetime.now(UTC)
    start = now.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    first, length = (
        int(start.timestamp() * 1000),
        int((now - start - timedelta(minutes=10)) / timedelta(milliseconds=1)),
    )
    c = await asyncpg.connect(mercat.postgres(), server_settings={"synchronous_commit": "off", "work_mem": "256MB"})
    await c.execute("SET session_replication_role = replica")
    owner = publisher.profile.org_id
    for kind, org in (("publisher_payable", owner), ("platform_fee", "")):
        await c.execute(
            "INSERT INTO billing.accounts (id, org_id, kind, currency) VALUES ($1, $2, $3, 'USD')"
            " ON CONFLICT DO NOTHING",
            f"acc_0000000000benchmark{kind[:7].replace('_', '0').replace('l', '1'):0<7}"[:30], org, kind,
        )  # fmt: skip
    await c.execute(_DIGITS.format(table="high", digits=7), first >> 15, (first + length) >> 15)
    await c.execute(_DIGITS.format(table="low", digits=3), 0, 32767)
    await c.execute(_PARTIES, [p.profile.org_id for p in people], owner)
    await c.execute("ANALYZE high, low, parties")
    price_id = await c.fetchval("SELECT id FROM billing.prices WHERE model_id = $1 ORDER BY id DESC", model.model_id)
    indexes = await c.fetch(_INDEXES)
    for i in indexes:
        gone = f"ALTER TABLE {i['table']} DROP CONSTRAINT {i['conname']}" if i["conname"] else f"DROP INDEX {i['name']}"
        await c.execute(gone)
    for at in range(0, records, _SLICE):
        async with c.transaction():
            upto = min(at + _SLICE, records)
            await c.execute(_CALLS, first, length, records, at, upto - 1, PEOPLE)
            await c.execute(_USAGE, model.model_id, model.model, owner, price_id)
            for statement in (_POSTINGS, _BALANCES):
                await c.execute(statement)
            await c.execute(_SPENDING, model.model_id)
            await c.execute("DROP TABLE calls")
        tell(f"{upto:,} of {records:,} calls written")
    await c.execute("SET maintenance_work_mem = '512MB'")
    for i in indexes:
        tell(f"indexing {i['table']}")
        key = f"ALTER TABLE {i['table']} ADD CONSTRAINT {i['conname']} {i['key']}"
        await c.execute(key if i["conname"] else i["made"])
    for table in ("usage.usage_records", "billing.postings"):
        await c.execute(f"VACUUM ANALYZE {table}")
    size: int = await c.fetchval("SELECT pg_database_size(current_database())")
    await c.close()
    return size


def prove(mercat: Mercat) -> proof_pb2.Proof:
    """The proof of this month, as an administrator asks for it."""
    admin = mercat.platform.admin()
    stub = proof_pb2_grpc.ProofServiceStub(mercat.platform.channel)
    *_, last = stub.ProveLedger(proof_pb2.ProveLedgerRequest(), metadata=admin.metadata, timeout=_PATIENCE)
    return last.proof  # type: ignore[no-any-return]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.month", description=__doc__.splitlines()[0])
    parser.add_argument("--records", type=int, default=RECORDS, help="calls [%(default)s]")
    records = parser.parse_args().records
    with tempfile.TemporaryDirectory(prefix="mercat-month-") as folder, Mercat(Path(folder) / "h", threads=1) as mercat:
        began = time.perf_counter()
        size = asyncio.run(fill(mercat, records, print))
        print(f"filled in {time.perf_counter() - began:.0f} s, {size / 1e9:.1f} GB")
        for _ in range(2):
            proof = prove(mercat)
            print(f"proven in {proof.took_ms / 1000:.1f} s: {'clean' if proof.clean else proof.discrepancies[:5]}")
        for section in proof.sections:
            print(section.name, {c.name: (c.rows, c.nanos) for c in section.counts}, section.differences)


if __name__ == "__main__":
    main()
