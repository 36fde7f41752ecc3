"""What a reviewer is shown of a version: what differs from the last published one, and what could be checked without
a person."""

import difflib
from collections.abc import Iterator, Mapping
from typing import Any

from google.protobuf import json_format
from mercat.billing.v1 import billing_pb2
from mercat.common.v1 import tensor_pb2
from mercat.registry.v1 import registry_pb2

V = registry_pb2
_CARD = 1 << 16  # characters of a card, and of a diff, that are compared and shown
_SLOWER = 1.5  # times the measure of the last version, from which on a person should look
_NOTHING = V.Version()


def changes(before: V.Version | None, after: V.Version) -> list[V.VersionChange]:
    """What is another than in `before`, None: everything is new."""
    was = before or _NOTHING
    then, now = _facts(was), _facts(after)
    found = [
        V.VersionChange(subject=subject, before=then.get(subject, ""), after=now.get(subject, ""))
        for subject in dict.fromkeys([*now, *then])
        if then.get(subject, "") != now.get(subject, "")
    ]
    # What is measured is never twice the same.
    pairs = zip(_measured(was), _measured(after), strict=True)
    found += [V.VersionChange(subject=name, before=a, after=b) for (name, a), (_, b) in pairs if a != b]
    return found


def card_diff(before: V.Version | None, after: V.Version) -> str:
    """As `diff -u` shows it; empty: the cards are the same."""
    old, new = (v.card[:_CARD].splitlines() for v in (before or _NOTHING, after))
    names = (before.version if before else "nothing", after.version)
    return "\n".join(difflib.unified_diff(old, new, *names, lineterm=""))[:_CARD]


def checks(
    before: V.Version | None, after: V.Version, price: billing_pb2.Price | None = None, *, described: bool = False
) -> list[V.VersionCheck]:
    """`price`: the one that calls cost now, None: it is not known. `described`: the model has a card of its own."""
    found = [_validation(after), *(_failed(f) for f in after.findings)]
    breaking = _breaking(before, after)
    if before is not None:
        found.append(_said("compatible with the last version", breaking))
        found.append(_said("as quick as the last version", _slower(before, after)))
        fresh = sorted(_domains(after) - _domains(before))
        found.append(_said("operators of the same domains", f"new: {', '.join(fresh)}" if fresh else ""))
    found += [
        _said("has a card", "" if after.card or described else "neither the model nor this version"),
        _said("has release notes", "" if after.release_notes else "none"),
        _samples(after),
    ]
    if price is not None:
        found.append(_said("priced", "" if price.price_id else "no price is set: calls are free"))
        since = before is not None and price.effective_at.ToNanoseconds() > before.published_at.ToNanoseconds()
        if since and price.price_id:
            assert before is not None
            found.append(_said("price as with the last version", f"changed since {before.version} was published"))
    return found


def _validation(version: V.Version) -> V.VersionCheck:
    if version.state == V.VERSION_STATE_VALIDATING:
        return V.VersionCheck(name="validation", result=V.CHECK_RESULT_WARNING, detail="has not ended")
    if version.findings:
        return V.VersionCheck(name="validation", result=V.CHECK_RESULT_FAILED, detail="see below")
    ran = f"ran in {version.measured_run_us / 1000:,.1f} ms" if version.measured_run_us else "was opened"
    detail = f"scanned, compared with what was declared, and {ran} in a sandbox"
    return V.VersionCheck(name="validation", result=V.CHECK_RESULT_PASSED, detail=detail)


def _samples(version: V.Version) -> V.VersionCheck:
    if not version.samples:
        return _said("has a sample", "none: nobody can try it at once")
    silent = [s.title or str(i) for i, s in enumerate(version.samples) if not s.response_json]
    if silent:
        detail = f"not run: {', '.join(silent)}"
        return V.VersionCheck(name="samples", result=V.CHECK_RESULT_FAILED, detail=detail)
    detail = f"{len(version.samples)} run in a sandbox, and answered"
    return V.VersionCheck(name="samples", result=V.CHECK_RESULT_PASSED, detail=detail)


def _failed(finding: V.Finding) -> V.VersionCheck:
    where = f"{finding.where}: " if finding.where else ""
    return V.VersionCheck(name=finding.code, result=V.CHECK_RESULT_FAILED, detail=where + finding.message)


def _said(name: str, problem: str) -> V.VersionCheck:
    result = V.CHECK_RESULT_WARNING if problem else V.CHECK_RESULT_PASSED
    return V.VersionCheck(name=name, result=result, detail=problem)


def _breaking(before: V.Version | None, after: V.Version) -> str:
    """Why callers of `before` may fail with `after` although its number does not say so (semver.org, 8)."""
    if before is None or _promises_less(before.version, after.version):
        return ""
    then, now = before.signature, after.signature
    problems = [f"the input {s.name} is new" for s in now.inputs if s.name not in {x.name for x in then.inputs}]
    for kind, old, new in (("input", then.inputs, now.inputs), ("output", then.outputs, now.outputs)):
        known = {s.name: s for s in new}
        for spec in old:
            same = known.get(spec.name)
            if same is None:
                problems.append(f"the {kind} {spec.name} is gone")
            elif (same.datatype, list(same.shape)) != (spec.datatype, list(spec.shape)):
                problems.append(f"the {kind} {spec.name} is another")
    return "; ".join(problems) and f"{'; '.join(problems)}, but {after.version} promises to be compatible"


def _promises_less(before: str, after: str) -> bool:
    """Whether callers of one version are to expect that another breaks them: another major number, or none yet."""
    old, new = before.split("."), after.split(".")
    return old[0] != new[0] or (old[0] == "0" and old[1] != new[1])


def _slower(before: V.Version, after: V.Version) -> str:
    found = []
    for name, attribute in (
        ("run", "measured_run_us"),
        ("load", "measured_load_us"),
        ("memory", "measured_memory_bytes"),
    ):
        old, new = getattr(before, attribute), getattr(after, attribute)
        if old and new > _SLOWER * old:
            found.append(f"{name}: {new / old:.1f} times")
    return ", ".join(found)


def _domains(version: V.Version) -> set[str]:
    return {name.rpartition(".")[0] for name in version.scan.operators} - {""}


def _facts(version: V.Version) -> dict[str, str]:
    """By what it is of."""
    found = {
        "framework": version.framework,
        "artifact": f"{version.digest}, {version.size_bytes:,} bytes" if version.digest else "",
        **{f"file {f.name}": f"{f.digest}, {f.size_bytes:,} bytes" for f in version.files},
        **{f"input {s.name}": _spec(s) for s in version.signature.inputs},
        **{f"output {s.name}": _spec(s) for s in version.signature.outputs},
        **{f"settings.{name}": text for name, text in _flat(version.settings)},
        **{f"sample {s.title or i}": s.request_json for i, s in enumerate(version.samples)},
        **{f"labels of {name}": f"{len(labels.names):,} names" for name, labels in version.labels.items()},
    }
    if version.HasField("text"):
        found |= {f"text.{name}": text for name, text in _flat(version.text)}
    if version.HasField("scan"):
        found["parameters"] = f"{version.scan.parameters:,}"
        found |= {f"operator {name}": f"{count:,}" for name, count in sorted(version.scan.operators.items())}
    return {subject: text for subject, text in found.items() if text}


def _measured(version: V.Version) -> Iterator[tuple[str, str]]:
    yield "run time", f"{version.measured_run_us / 1000:,.1f} ms" if version.measured_run_us else ""
    yield "load time", f"{version.measured_load_us / 1000:,.1f} ms" if version.measured_load_us else ""
    yield "memory", f"{version.measured_memory_bytes / 2**20:,.1f} MiB" if version.measured_memory_bytes else ""


def _spec(spec: tensor_pb2.TensorSpec) -> str:
    return f"{spec.datatype} {[n if n >= 0 else 'any' for n in spec.shape]}".replace("'", "")


def _flat(message: Any, prefix: str = "") -> Iterator[tuple[str, str]]:
    shown = json_format.MessageToDict(message, preserving_proto_field_name=True)
    yield from _leaves(shown, prefix)


def _leaves(shown: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, str]]:
    for name, value in shown.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", str(value)
