"""Where traces of a person can be, looked through whole: tables, streams, files, the index of the storefront,
Valkey; and which tables know of them at all."""

import json
from pathlib import Path

import asyncpg
import nats
import tantivy
from redis import Redis

from services.__main__ import CONTRACTS
from services.common.events import EVENT_STREAM, JOB_STREAM, USAGE_STREAM
from tests.contract.test_personal import STAYS, touched

# Files of a database or broker, in which what was deleted lies until it is written over, are looked into through them.
THROUGH = ("postgres", "nats", "valkey", "secrets", "run", "tls", "connection.json")


async def tables(url: str, forms: list[bytes]) -> dict[str, list[str]]:
    """Every row of every table in which one of the forms is."""
    connection, found = await asyncpg.connect(url), {}
    try:
        names = await connection.fetch(
            "SELECT quote_ident(schemaname) || '.' || quote_ident(tablename) AS name FROM pg_tables"
            " WHERE schemaname NOT IN ('pg_catalog', 'information_schema')"
        )
        for name in (row["name"] for row in names):
            rows = [row[0] for row in await connection.fetch(f"SELECT t::text FROM {name} t")]
            hits = [row for row in rows if any(form.decode() in row for form in forms)]
            if hits:
                found[name] = hits[:3]
    finally:
        await connection.close()
    return found


async def messages(url: str, forms: list[bytes]) -> list[str]:
    """Of every stream there is."""
    client, found = await nats.connect(url), []
    js = client.jetstream()
    streams = {info.config.name: info.state for info in await js.streams_info()}
    assert streams.keys() >= {EVENT_STREAM, JOB_STREAM, USAGE_STREAM}
    for stream, state in streams.items():
        for sequence in range(state.first_seq, state.last_seq + 1):
            try:
                message = await js.get_msg(stream, sequence)
            except nats.js.errors.NotFoundError:
                continue
            data = (message.data or b"") + str(message.headers).encode()
            if any(form in data for form in forms):
                found.append(f"{stream} {sequence} {message.subject}: {data!r}"[:300])
    await client.close()
    return found


def files(home: Path, forms: list[bytes]) -> list[str]:
    found = []
    for path in [*home.rglob("*"), home.parent / f"{home.name}.up.log"]:
        inside = path.relative_to(home.parent).parts[1:]
        if not path.is_file() or (inside and inside[0] in THROUGH):
            continue
        data = path.read_bytes()
        found += (
            [str(path.relative_to(home.parent))]
            if any(form in data or form in str(path).encode() for form in forms)
            else []
        )
    return found


def keys(url: str, forms: list[bytes]) -> list[str]:
    redis = Redis.from_url(url)
    try:
        return [
            str(key) for key in redis.scan_iter(count=1000)
            if any(form in key + (redis.dump(key) or b"") for form in forms)
        ]  # fmt: skip
    finally:
        redis.close()


def index(home: Path, forms: list[bytes]) -> list[str]:
    """Documents in any index of the storefront; and what an index keeps of those that it has not any more, which no
    search finds. Its files are compressed, so that looking into them as they are finds little."""
    found: list[str] = []
    for folder in (f for f in (home / "search", home / "search-next") if f.is_dir()):
        meta = json.loads((folder / "meta.json").read_text())
        segments = {s["segment_id"].replace("-", "") for s in meta["segments"]}
        found += [f"{folder.name}: deleted from {s['segment_id']}" for s in meta["segments"] if s["deletes"]]
        found += [
            f"{folder.name}: left of a segment: {path.name}" for path in folder.iterdir()
            if len(stem := path.name.partition(".")[0]) == 32 and stem not in segments
        ]  # fmt: skip
        searcher = tantivy.Index.open(str(folder)).searcher()
        hits = searcher.search(tantivy.Query.all_query(), limit=10_000).hits
        for _, address in hits:
            document = str(searcher.doc(address).to_dict()).encode()
            if any(form in document for form in forms):
                found.append(f"{folder.name}: {document.decode()[:200]}")
    return found


async def unfilled(url: str, names: list[str]) -> set[str]:
    """Tables that some part of an export or an erasure is about, in which nothing is of a person; those of the books
    that stay as they are aside. `names`: ids, handles, words of theirs. A row is theirs that has one of them, or the id
    of a row that is theirs."""
    connection = await asyncpg.connect(url)
    try:
        rows = await connection.fetch(
            "SELECT schemaname || '.' || tablename AS name FROM pg_tables WHERE schemaname = ANY($1::text[])",
            list(CONTRACTS),
        )
        there = {row["name"] for row in rows}
        wanted = {t for s in CONTRACTS for export in (False, True) for t in touched(s, export=export)} & there
        held = {
            name: [row[0] for row in await connection.fetch(f"SELECT to_jsonb(t)::text FROM {name} t")]
            for name in there
        }
    finally:
        await connection.close()
    known, filled = set(names), set[str]()
    for _ in range(3):  # a call of a job of a model
        for name, kept in held.items():
            mine = [json.loads(row) for row in kept if any(k in row for k in known)]
            if mine:
                filled.add(name)
            known |= {str(row[key]) for row in mine for key in ("id", "digest") if len(str(row.get(key, ""))) > 20}
    return wanted - filled - STAYS.keys()
