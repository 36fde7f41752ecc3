"""What a report of the validation means for a version: where it differs from what its publisher declared, and what of
it is served."""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

from mercat.common.v1 import tensor_pb2
from mercat.registry.v1 import registry_pb2
from mercat.storage.v1 import storage_pb2

from services.registry.store import Row
from services.registry.validation import Finding, Report, Samples, Tensor, Told

_PIECE = 1 << 20  # bytes
_STORING = 600.0  # seconds
_KINDS = {"decoder": registry_pb2.TEXT_KIND_DECODER, "encoder": registry_pb2.TEXT_KIND_ENCODER}


def told(row: Row, converters: str) -> Told:
    """What a converter goes by. `converters`: the interpreter that has other frameworks."""
    declared = tensor_pb2.Signature.FromString(row["signature"])
    document = registry_pb2.Version.FromString(row["document"])
    return Told(
        tuple(Tensor(s.name, s.datatype, tuple(s.shape), ("",) * len(s.shape)) for s in declared.inputs),
        tuple(s.name for s in declared.outputs), tuple(sample.request_json for sample in document.samples), converters,
    )  # fmt: skip


def samples_of(row: Row, context: int) -> Samples:
    """`context`: tokens of a text call here, where the model takes as many."""
    document = registry_pb2.Version.FromString(row["document"])
    return Samples(
        tuple(s.request_json for s in document.samples), tuple(s.title for s in document.samples),
        document.settings.max_batch_size, context,
    )  # fmt: skip


def signature_of(report: Report, declared: tensor_pb2.Signature) -> tensor_pb2.Signature:
    """Empty for a decoder, which takes no tensors from callers. What its publisher declared to be an image is one,
    too."""
    images = {spec.name for spec in (*declared.inputs, *declared.outputs) if spec.image}
    return tensor_pb2.Signature(
        inputs=[_spec(t, t.name in images) for t in report.inputs],
        outputs=[_spec(t, t.name in images) for t in report.outputs],
    )


def _spec(t: Tensor, image: bool) -> tensor_pb2.TensorSpec:
    return tensor_pb2.TensorSpec(name=t.name, datatype=t.datatype, shape=t.shape, axes=t.axes, image=image or t.image)


def text_of(report: Report) -> registry_pb2.TextModel:
    text = report.text
    assert text is not None
    return registry_pb2.TextModel(
        kind=_KINDS[text.kind], context_tokens=text.context, vocabulary_size=text.vocabulary, chat=text.chat,
        tools=text.tools, architecture=text.architecture, divergence=text.divergence, agreement=text.agreement,
    )  # fmt: skip


def scan_of(report: Report) -> bytes:
    """As it is kept; empty where nothing was seen."""
    scan = report.scan
    if not scan.operators:
        return b""
    made = registry_pb2.Scan(operators=dict(scan.operators), parameters=scan.parameters, weight_bytes=scan.weight_bytes)
    return made.SerializeToString(deterministic=True)


async def stored(storage: Any, path: Path) -> storage_pb2.StoreArtifactResponse:
    """Stores what a validation made. Raises what StoreArtifact does, OSError."""
    with path.open("rb") as file:
        digest = f"sha256:{(await asyncio.to_thread(hashlib.file_digest, file, 'sha256')).hexdigest()}"
        size = file.tell()
        file.seek(0)

        async def pieces() -> AsyncIterator[storage_pb2.StoreArtifactRequest]:
            yield storage_pb2.StoreArtifactRequest(digest=digest, size_bytes=size)
            while data := file.read(_PIECE):
                yield storage_pb2.StoreArtifactRequest(data=data)

        answer: storage_pb2.StoreArtifactResponse = await storage.StoreArtifact(pieces(), timeout=_STORING)
        return answer


def differences(row: Row, report: Report) -> list[Finding]:
    """Of a version without findings: where it is not what its publisher declared."""
    document = registry_pb2.Version.FromString(row["document"])
    found = [*_framework(row, report), *_signature(tensor_pb2.Signature.FromString(row["signature"]), report)]
    if report.text is not None and report.text.kind == "decoder":
        found += _decoder(document.settings)
    elif document.settings.max_batch_size:
        found += _batching(report)
    return [*found, *_labels(document, report)]


def _framework(row: Row, report: Report) -> Iterator[Finding]:
    if row["framework"] not in ("", report.framework):
        yield Finding("FRAMEWORK_DIFFERS", f"declared {row['framework']}, but its content is {report.framework}")


def _signature(declared: tensor_pb2.Signature, report: Report) -> list[Finding]:
    """Where the publisher's own words and the graph's differ; nothing of what the publisher said nothing about."""
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
        found += [Finding("SIGNATURE_DIFFERS", f"this {kind} is not declared", name) for name in actual if said]
    return found


def _batching(report: Report) -> Iterator[Finding]:
    """A model that is batched needs a first axis of any length on everything it takes and gives."""
    for t in (*report.inputs, *report.outputs):
        if not t.shape or t.shape[0] != -1:
            yield Finding("NOT_BATCHABLE", "max_batch_size needs a first axis of any length; this one has none", t.name)


def _decoder(settings: registry_pb2.InferenceSettings) -> Iterator[Finding]:
    """Its calls run together of themselves, token by token."""
    if settings.max_batch_size:
        text = "calls of a decoder run together without it; leave max_batch_size out"
        yield Finding("NOT_BATCHABLE", text, "settings.max_batch_size")
    for name, given in (("response_cache", settings.HasField("response_cache")), ("padding", bool(settings.padding))):
        if given:
            yield Finding("SETTING_UNSUPPORTED", "a decoder takes no tensors, for which this is", f"settings.{name}")


def _labels(document: registry_pb2.Version, report: Report) -> Iterator[Finding]:
    """Labels say what an output means; those of an output that is not there say nothing."""
    outputs = {t.name for t in report.outputs}
    for name in sorted(document.labels):
        if name not in outputs:
            yield Finding("LABELS_DIFFER", "the graph has no output of this name", name)
