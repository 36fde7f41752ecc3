"""Validates new versions, one at a time, each in a child process that is thrown away (`validation/`)."""

import asyncio
import logging
from datetime import timedelta
from pathlib import Path
from typing import Any

from mercat.common.v1 import tensor_pb2
from mercat.registry.v1 import registry_pb2
from mercat.storage.v1 import storage_pb2, storage_pb2_grpc

from services.common.clock import Clock
from services.common.db import Database
from services.common.errors import MercatError
from services.common.rpc.channels import InternalChannel
from services.registry.scratch import scratch, sweep
from services.registry.store import Row, Store
from services.registry.validation import Finding, Limits, Report, Tensor, validate

log = logging.getLogger(__name__)
_POLL = 1.0  # seconds; another process may have made the version
_CLAIM = timedelta(seconds=20)  # that a version is left to a process that says no more
_RENEW = 5.0  # seconds


class Validator:
    """Takes versions that are VALIDATING and makes them DRAFT or REFUSED."""

    def __init__(self, database: Database, store: Store, control: InternalChannel, clock: Clock, folder: Path) -> None:
        self._database = database
        self._store = store
        self._storage = storage_pb2_grpc.ArtifactServiceStub(control)
        self._clock = clock
        self._folder = folder
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

    async def _validate(self, row: Row) -> None:
        declared = tensor_pb2.Signature.FromString(row["signature"])
        with scratch(self._folder) as folder:
            path = folder / "model.onnx"
            with path.open("wb") as file:
                async for piece in self._storage.FetchArtifact(storage_pb2.FetchArtifactRequest(digest=row["digest"])):
                    file.write(piece.data)
            report = await _report(path)
        findings = [*report.findings, *_differences(declared, report), *_batching(row, report), *_labels(row, report)]
        state = registry_pb2.VERSION_STATE_REFUSED if findings else registry_pb2.VERSION_STATE_DRAFT
        signature = declared if findings else _signature(report)
        async with self._database.transaction() as connection:
            await self._store.finish_validation(
                connection, row["id"], state=state, signature=signature.SerializeToString(),
                findings=[{"code": f.code, "message": f.message, "where": f.where} for f in findings],
                load_us=report.load_us, run_us=report.run_us, memory_bytes=report.memory_bytes,
            )  # fmt: skip
        log.info("validated %s: %s", row["id"], [f.code for f in findings] or "fit to be served")


async def _report(path: Path) -> Report:
    """Of an artifact. One that this code has no answer to is refused: it must not hold up those behind it."""
    try:
        return await validate(path, Limits())
    except OSError:
        raise
    except Exception:
        log.exception("validation failed")
        finding = Finding("VALIDATION_FAILED", "Mercat could not validate this artifact; tell support the version id")
        return Report(findings=(finding,))


def _spec(t: Tensor) -> tensor_pb2.TensorSpec:
    return tensor_pb2.TensorSpec(name=t.name, datatype=t.datatype, shape=t.shape, axes=t.axes)


def _signature(report: Report) -> tensor_pb2.Signature:
    return tensor_pb2.Signature(inputs=[_spec(t) for t in report.inputs], outputs=[_spec(t) for t in report.outputs])


def _differences(declared: tensor_pb2.Signature, report: Report) -> list[Finding]:
    """Where the publisher's own words and the graph's differ; nothing when the publisher said nothing."""
    if report.findings or not (declared.inputs or declared.outputs):
        return []
    found: list[Finding] = []
    pairs: tuple[tuple[str, Any, tuple[Tensor, ...]], ...] = (
        ("input", declared.inputs, report.inputs), ("output", declared.outputs, report.outputs)
    )  # fmt: skip
    for kind, said, is_there in pairs:
        actual = {t.name: t for t in is_there}
        for spec in said:
            t = actual.pop(spec.name, None)
            if t is None:
                found.append(Finding("SIGNATURE_DIFFERS", f"the graph has no such {kind}", spec.name))
            elif (spec.datatype, list(spec.shape)) != (t.datatype, list(t.shape)):
                text = f"declared {spec.datatype} {list(spec.shape)}, but the graph has {t.datatype} {list(t.shape)}"
                found.append(Finding("SIGNATURE_DIFFERS", text, spec.name))
        found += [Finding("SIGNATURE_DIFFERS", f"this {kind} is not declared", name) for name in actual]
    return found


def _batching(row: Row, report: Report) -> list[Finding]:
    """A model that is batched needs a first axis of any length on everything it takes and gives."""
    if report.findings or not registry_pb2.Version.FromString(row["document"]).settings.max_batch_size:
        return []
    return [
        Finding("NOT_BATCHABLE", "max_batch_size needs a first axis of any length; this one has none", t.name)
        for t in (*report.inputs, *report.outputs)
        if not t.shape or t.shape[0] != -1
    ]


def _labels(row: Row, report: Report) -> list[Finding]:
    """Labels say what an output means; those of an output that is not there say nothing."""
    if report.findings:
        return []
    outputs = {t.name for t in report.outputs}
    labels = registry_pb2.Version.FromString(row["document"]).labels
    return [
        Finding("LABELS_DIFFER", "the graph has no output of this name", n) for n in sorted(labels) if n not in outputs
    ]
