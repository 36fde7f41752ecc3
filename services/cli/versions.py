"""How versions of models are shown."""

import json
from collections.abc import Iterable
from typing import Any

from mercat.common.v1 import tensor_pb2
from mercat.registry.v1 import registry_pb2

from services.cli import output

_SHOWN = 300  # characters of a text that a sample gave
STATES = {
    state: registry_pb2.VersionState.Name(state).removeprefix("VERSION_STATE_").lower()
    for state in registry_pb2.VersionState.values()
}


def standing(version: registry_pb2.Version) -> str:
    """Its state, and that it is yanked, in review beside that, or when its sunset is."""
    state = STATES[version.state]
    if version.state == registry_pb2.VERSION_STATE_DEPRECATED and version.deprecation.HasField("sunset_at"):
        state += f" until {output.when(version.deprecation.sunset_at)}"
    if version.review == registry_pb2.REVIEW_STANDING_REQUESTED and version.state != registry_pb2.VERSION_STATE_REVIEW:
        state += ", in review"
    return f"{state}, yanked" if version.HasField("yank") else state


def show_end(version: registry_pb2.Version) -> list[tuple[str, str]]:
    """Why it should not be used any more, and what instead; nothing for one that should."""
    told, yank = version.deprecation, version.yank
    return [
        ("deprecated", output.when(told.deprecated_at)), ("because", told.reason),
        ("sunset", output.when(told.sunset_at)),
        ("successor", told.successor), ("yanked", output.when(yank.yanked_at)),
        ("yanked because", yank.reason), ("yanked by", "a platform admin" if yank.by_admin else ""),
    ]  # fmt: skip


def show_spec(spec: tensor_pb2.TensorSpec) -> str:
    """`input_ids INT64 [batch, any]`."""
    names = [*spec.axes, *[""] * len(spec.shape)]
    axes = [_axis(name, length) for name, length in zip(names, spec.shape, strict=False)]
    image = " (image)" if spec.image else ""
    return f"{spec.name} {spec.datatype} [{', '.join(axes)}]{image}"


def _axis(name: str, length: int) -> str:
    if length >= 0:
        return str(length)
    return "any" if not name or name.startswith("unk__") else name  # what exporters call an axis without a name


def show_text(version: registry_pb2.Version) -> list[tuple[str, str]]:
    """What a version is to text calls; nothing for one that is no text model."""
    if not version.HasField("text"):
        return []
    text = version.text
    kind = "decoder" if text.kind == registry_pb2.TEXT_KIND_DECODER else "encoder"
    template = "with a chat template that takes tools" if text.tools else "with a chat template" if text.chat else ""
    exact = f"{text.divergence:.4f} nats from the file's own weights, {text.agreement:.0%} of its choices the same"
    return [
        ("text", ", ".join(part for part in (kind, text.architecture, template) if part)),
        ("context", f"{text.context_tokens:,} tokens"), ("vocabulary", f"{text.vocabulary_size:,} tokens"),
        ("exactness", exact if text.agreement else ""),
        ("served as", f"{version.served_digest}, {output.size(version.served_size_bytes)}"
         if version.served_digest else ""),
    ]  # fmt: skip


def show_scan(version: registry_pb2.Version) -> list[tuple[str, str]]:
    """What is in its graph; nothing where that is not known."""
    if not version.HasField("scan"):
        return []
    scan = version.scan
    ranked = sorted(scan.operators.items(), key=lambda item: (-item[1], item[0]))
    return [
        ("weights", f"{scan.parameters:,}, {output.size(scan.weight_bytes)}"),
        ("operators", ", ".join(f"{name} {count:,}" for name, count in ranked)),
    ]


def show_samples(samples: Iterable[registry_pb2.Sample]) -> list[tuple[str, str]]:
    """By their numbers, from 1 on, with what they gave when the version was validated."""
    rows: list[tuple[str, str]] = []
    for number, sample in enumerate(samples, 1):
        rows.append((f"sample {number}", sample.title or "untitled"))
        if sample.response_json:
            rows.append(("  gave", _gave(json.loads(sample.response_json))))
    return rows


def _gave(reply: dict[str, Any]) -> str:
    if "text" in reply:
        text = " ".join(str(reply["text"]).split())
        return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"
    return ", ".join(f"{t['name']} {t['datatype']} [{', '.join(t.get('shape', []))}]" for t in reply.get("outputs", []))


def findings(version: registry_pb2.Version) -> None:
    """Why validation refused a version."""
    output.table(["code", "where", "what"], [(f.code, f.where, f.message) for f in version.findings], empty="")
