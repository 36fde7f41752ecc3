"""Validates new versions, one at a time, each in a child process that is thrown away (`validation/`)."""

import asyncio
import logging
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

from mercat.common.v1 import tensor_pb2
from mercat.registry.v1 import registry_pb2
from mercat.storage.v1 import storage_pb2, storage_pb2_grpc

from services.common.clock import Clock
from services.common.db import Database
from services.common.errors import MercatError
from services.common.rpc.channels import InternalChannel
from services.registry import lifecycle
from services.registry.scratch import scratch, sweep
from services.registry.served import differences, samples_of, scan_of, signature_of, stored, text_of, told
from services.registry.store import Row, Store
from services.registry.validation import File, Finding, Report, Samples, Told, limits, validate
from services.registry.validation.report import DATA, TOKENIZER

log = logging.getLogger(__name__)
_POLL = 1.0  # seconds; another process may have made the version
_CLAIM = timedelta(seconds=20)  # that a version is left to a process that says no more
_RENEW = 5.0  # seconds
_MOST = 8 * 1024**3  # bytes of what a version is made of: more is not even fetched
BUNDLED: dict[int, str] = {registry_pb2.FILE_ROLE_EXTERNAL_DATA: DATA, registry_pb2.FILE_ROLE_TOKENIZER: TOKENIZER}


class Validator:
    """Takes versions that are VALIDATING and makes them DRAFT or REFUSED."""

    def __init__(
        self, database: Database, store: Store, control: InternalChannel, clock: Clock, folder: Path, converters: str,
        context: int,
    ) -> None:  # fmt: skip
        """`converters`: the interpreter that has other frameworks; `context`: tokens of a text call."""
        self._database = database
        self._store = store
        self._storage = storage_pb2_grpc.ArtifactServiceStub(control)
        self._clock = clock
        self._folder = folder
        self._converters = converters
        self._context = context
        self._woken = asyncio.Event()

    def wake(self) -> None:
        """There is a new version."""
        self._woken.set()

    async def work(self) -> None:
        """Validates, for ever."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if left := await asyncio.to_thread(sweep, self._folder):
            log.info("removed what %d interrupted validations left", left)
        while True:
            try:
                now = self._clock.now()
                async with self._database.transaction() as connection:
                    row = await self._store.claim_validation(connection, now, now + _CLAIM)
                if row is not None:
                    await self._validate_or_release(row)
                    continue
            except (MercatError, OSError) as e:  # a full disk, too; the claim runs out and the version is taken again
                log.warning("validation waits: %s", e)
                await asyncio.sleep(1)
            try:
                await asyncio.wait_for(self._woken.wait(), _POLL)
            except TimeoutError:
                pass
            self._woken.clear()

    async def _validate_or_release(self, row: Row) -> None:
        """Holds the claim meanwhile. A process that is stopped leaves the version to the next one at once, one that
        dies within seconds."""
        holding = asyncio.create_task(self._hold(row["id"]))
        try:
            await self._validate(row)
        except asyncio.CancelledError:
            async with self._database.transaction() as connection:
                await self._store.hold_validation(connection, row["id"], None)
            raise
        finally:
            holding.cancel()

    async def _hold(self, version_id: str) -> None:
        while True:
            await asyncio.sleep(_RENEW)
            try:
                async with self._database.transaction() as connection:
                    await self._store.hold_validation(connection, version_id, self._clock.now() + _CLAIM)
            except MercatError as e:
                log.warning("the claim on %s was not renewed: %s", version_id, e)

    async def _fetch(self, digest: str, path: Path) -> None:
        with path.open("wb") as file:
            async for piece in self._storage.FetchArtifact(storage_pb2.FetchArtifactRequest(digest=digest)):
                file.write(piece.data)

    async def _validate(self, row: Row) -> None:
        declared = tensor_pb2.Signature.FromString(row["signature"])
        beside = [file for file in registry_pb2.Version.FromString(row["document"]).files if file.role in BUNDLED]
        with scratch(self._folder) as folder:
            path, made = folder / "model.onnx", folder / "made.onnx"
            if (size := row["size_bytes"] + sum(file.size_bytes for file in beside)) > _MOST:
                finding = Finding("FILE_TOO_LARGE", f"it has {size:,} bytes; at most {_MOST:,}")
                report = Report(findings=(finding,))
            else:
                await self._fetch(row["digest"], path)
                files = [File(str(folder / f"file-{i}"), f.name, BUNDLED[f.role]) for i, f in enumerate(beside)]
                for file, known in zip(files, beside, strict=True):
                    await self._fetch(known.digest, Path(file.path))
                samples = samples_of(row, self._context)
                report = await _report(path, made, told(row, self._converters), files, samples)
            findings = [*report.findings, *(() if report.findings else differences(row, report))]
            keep = report.made and not findings
            served = await stored(self._storage, made) if keep else storage_pb2.StoreArtifactResponse()
        step = "refuse" if findings else "accept"
        state = lifecycle.advance(step, lifecycle.Standing(row["state"]), lifecycle.Actor.PLATFORM).state
        signature = declared if findings else signature_of(report, declared)
        text = text_of(report).SerializeToString() if report.text and not findings else b""
        async with self._database.transaction() as connection:
            await self._store.finish_validation(
                connection, row["id"], state=state, framework=row["framework"] or report.framework,
                form=report.form,
                signature=signature.SerializeToString(), text=text, served_digest=served.digest,
                served_size_bytes=served.size_bytes,
                findings=[{"code": f.code, "message": f.message, "where": f.where} for f in findings],
                load_us=report.load_us, run_us=report.run_us, memory_bytes=report.memory_bytes,
                scan=b"" if findings else scan_of(report),
                samples=None if findings else report.samples,
            )  # fmt: skip
        log.info("validated %s: %s", row["id"], [f.code for f in findings] or "fit to be served")
        if report.form and report.made:
            log.info(
                "%s: %s as ONNX gives what its source gives but for %.3g", row["id"], report.form, report.difference
            )
        if report.text is not None and report.made:
            log.info("%s: %.4f nats from its own weights, %.0f %% of its choices the same", row["id"],
                     report.text.divergence, report.text.agreement * 100)  # fmt: skip


async def _report(path: Path, made: Path, told: Told, files: Sequence[File], samples: Samples) -> Report:
    """Of an artifact. One that this code has no answer to is refused: it must not hold up those behind it."""
    try:
        return await validate(path, limits(path), made, told, files, samples)
    except OSError:
        raise
    except Exception:
        log.exception("validation failed")
        finding = Finding("VALIDATION_FAILED", "Mercat could not validate this artifact; tell support the version id")
        return Report(findings=(finding,))
