"""`mercat infer` and `mercat quote`."""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from mercat.inference.v1 import inference_pb2
from mercat.registry.v1 import registry_pb2

from services.cli import output
from services.cli.command import Session, command
from services.cli.inputs import of_bytes, parse_input, parse_request, parse_shape, read, to_array
from services.cli.prices import show_allowance
from services.cli.session import Refusal
from services.cli.usage import show_units
from services.common import money
from services.common.errors import MercatError

_SHOWN = 8  # elements of an output
_BEST = 5  # labels

Model = Annotated[str, typer.Argument(help="publisher/name, with @1.4.2 or :alias for a version.")]
Inputs = Annotated[
    list[str] | None,
    typer.Option("--input", "-i", metavar="NAME=VALUE", help="JSON, or @file.npy, or @file.json. Repeatable."),
]
Data = Annotated[str, typer.Option(metavar="FILE", help="A whole request as REST takes it; - is standard input.")]
Raw = Annotated[
    list[str] | None,
    typer.Option(metavar="NAME=FILE", help="A file's bytes are the elements, little-endian. Repeatable."),
]
Shape = Annotated[
    list[str] | None, typer.Option(metavar="NAME=N,N", help="Shape of a --raw input, where the model leaves it open.")
]
Units = Annotated[int | None, typer.Option(min=0, help="Instead of inputs: what a call is counted as.")]


def register(app: typer.Typer) -> None:
    app.command()(command(infer))
    app.command()(command(quote))


def _request(
    session: Session, model: str, inputs: list[str] | None, data: str, raw: list[str] | None, shape: list[str] | None
) -> inference_pb2.PredictRequest:
    if bool(data) == bool(inputs or raw):
        hint = f"; what it takes, `mercat models show {model}` says"
        raise typer.BadParameter(f"give the inputs with --input and --raw, or the whole request with --data{hint}")
    request = parse_request(read(data)) if data else inference_pb2.PredictRequest()
    request.model = model
    request.inputs.extend(parse_input(text) for text in inputs or ())
    if raw:
        shapes = dict(parse_shape(text) for text in shape or ())
        asked = inference_pb2.GetSignatureRequest(model=model)
        signature = session.client.inference.GetSignature(asked).signature
        for text in raw:
            name, separator, path = text.partition("=")
            if not separator:
                raise typer.BadParameter(f"{text!r} has no name; write it as name=file.bin")
            request.inputs.append(of_bytes(name, read(path), signature, shapes))
    return request


def infer(
    session: Session,
    model: Model,
    inputs: Inputs = None,
    data: Data = "",
    raw: Raw = None,
    shape: Shape = None,
    only: Annotated[list[str] | None, typer.Option(metavar="NAME", help="Only this output. Repeatable.")] = None,
    to: Annotated[Path | None, typer.Option("--output", "-o", help="Write to .npy (one output) or .npz.")] = None,
    timeout: Annotated[float, typer.Option(min=0.001, help="Seconds to wait for the answer.")] = 60.0,
    idempotency_key: Annotated[str, typer.Option(help="Of your own: the call runs and is charged once for it.")] = "",
    tag: Annotated[
        list[str] | None, typer.Option(metavar="NAME=VALUE", help="Tells the call apart in usage. Repeatable.")
    ] = None,
) -> None:
    """Calls a model. Shows the outputs, what it cost and the request id.

    Examples:

      mercat infer ada/adder --input 'x=[[1, 2]]' --input 'y=[[3, 4]]'

      mercat infer ada/embedder@1.0.0 --input input_ids=@ids.npy --output embedding.npy

      mercat infer ada/adder --data request.json --json
    """
    if to is not None and to.suffix not in (".npy", ".npz"):
        raise typer.BadParameter(f"{to}: write to a file that ends in .npy or .npz")
    request = _request(session, model, inputs, data, raw, shape)
    request.outputs.extend(only or ())
    request.raw_output = request.raw_output or to is not None
    metadata: tuple[tuple[str, str], ...] = tuple(("mercat-tag", one) for one in tag or ())
    if idempotency_key:
        metadata += (("idempotency-key", idempotency_key),)
    began = time.monotonic()
    answer = session.client.inference.Predict(request, timeout=timeout, metadata=metadata)
    took = time.monotonic() - began
    if to is not None:
        _write(to, answer)
    if session.json:
        output.say_json(answer)
        return
    show_answer(answer, took, {} if to is not None else _labels(session, answer), to)


def show_answer(
    answer: inference_pb2.PredictResponse, seconds: float, labels: Mapping[str, list[str]], to: Path | None = None
) -> None:
    """The outputs and what they cost. `labels`: what their positions mean; `to`: where they were written."""
    took = f"{seconds * 1000:,.0f} ms"
    if answer.cold_start_ms:
        took += f", of which {answer.cold_start_ms:,} ms to load the model; it is ready for the next calls"
    for tensor in answer.outputs:
        output.facts([
            (tensor.name, f"{tensor.datatype} [{', '.join(map(str, tensor.shape))}]"),
            ("", _preview(tensor)),
            *(("", line) for line in _best(tensor, labels.get(tensor.name, []))),
        ])  # fmt: skip
    if to is not None:
        output.say(f"Written to {to}.")
    output.facts([
        ("version", f"{answer.model}@{answer.version}"), ("cost", money.show(answer.cost_nanos)),
        ("time", took), ("request", answer.request_id),
    ])  # fmt: skip


def _write(path: Path, answer: inference_pb2.PredictResponse) -> None:
    arrays = {tensor.name: to_array(tensor) for tensor in answer.outputs}
    if path.suffix == ".npy" and len(arrays) != 1:
        raise Refusal(
            f"The model gave {len(arrays)} outputs ({', '.join(arrays)}) and an .npy file holds one.",
            f"name one with --only, or write to an .npz file; request {answer.request_id} was charged",
        )
    try:
        with path.open("wb") as file:
            if path.suffix == ".npy":
                np.save(file, next(iter(arrays.values())), allow_pickle=False)
            else:
                np.savez(file, **arrays)  # type: ignore[arg-type]
    except OSError as error:
        raise Refusal(f"{path} cannot be written ({error.strerror}).", "the call itself was made and charged") from None


def _elements(tensor: inference_pb2.Tensor) -> list[Any]:
    if tensor.HasField("data"):
        return [getattr(v, v.WhichOneof("kind") or "string_value") for v in tensor.data.values]
    return list(to_array(tensor).ravel().tolist())


def _preview(tensor: inference_pb2.Tensor) -> str:
    elements = _elements(tensor)
    shown = ", ".join(f"{e:.6g}" if isinstance(e, float) else str(e)[:80] for e in elements[:_SHOWN])
    return shown + (f", … {len(elements) - _SHOWN:,} more" if len(elements) > _SHOWN else "")


def _labels(session: Session, answer: inference_pb2.PredictResponse) -> dict[str, list[str]]:
    """What the positions of outputs mean, by output; nothing where the version does not say or may not be read."""
    request = registry_pb2.GetVersionRequest(model=answer.model, version=answer.version)
    try:
        version = session.client.registry.GetVersion(request).version
    except MercatError:
        return {}
    return labels_of(version)


def labels_of(version: registry_pb2.Version) -> dict[str, list[str]]:
    return {name: list(labels.names) for name, labels in version.labels.items()}


def _best(tensor: inference_pb2.Tensor, names: list[str]) -> list[str]:
    """The best labels of the first row."""
    if not names or not tensor.shape or tensor.shape[-1] != len(names):
        return []
    row = _elements(tensor)[: len(names)]
    try:
        order = sorted(range(len(row)), key=lambda i: -float(row[i]))
    except ValueError:
        return []
    return [f"{float(row[i]):.4f}  {names[i]}" for i in order[:_BEST]]


def quote(
    session: Session,
    model: Model,
    inputs: Inputs = None,
    data: Data = "",
    raw: Raw = None,
    shape: Shape = None,
    rows: Units = None,
    input_bytes: Units = None,
    input_tokens: Units = None,
    cached_input_tokens: Units = None,
    output_tokens: Units = None,
    images: Units = None,
    output_bytes: Units = None,
    compute_us: Units = None,
    calls: Annotated[int, typer.Option(min=1, max=1000, help="So many such calls, one after the other.")] = 1,
) -> None:
    """Shows what a call would cost, without running it: one with these inputs, or with so many units.

    Examples:

      mercat quote ada/adder --input 'x=[[1, 2]]' --input 'y=[[3, 4]]'

      mercat quote ada/chat --input-tokens 500 --output-tokens 200 --calls 10
    """
    counted = {
        "rows": rows, "input_bytes": input_bytes, "input_tokens": input_tokens,
        "cached_input_tokens": cached_input_tokens, "output_tokens": output_tokens, "images": images,
        "output_bytes": output_bytes, "compute_us": compute_us,
    }  # fmt: skip
    units = {meter: count for meter, count in counted.items() if count is not None}
    if inputs or data or raw:
        if units:
            raise typer.BadParameter("give inputs or units, not both")
        request = _request(session, model, inputs, data, raw, shape)
        asked = inference_pb2.QuoteRequest(model=model, inputs=request.inputs, calls=calls)
    else:
        asked = inference_pb2.QuoteRequest(model=model, units={"requests": 1} | units, calls=calls)
    answer = session.client.inference.Quote(asked)
    if session.json:
        output.say_json(answer)
        return
    used = show_units(answer.positions) if answer.positions else ""
    output.facts([
        ("version", f"{answer.model}@{answer.version}"),
        ("at most" if answer.at_most else "cost", money.show(answer.cost_nanos, answer.currency)),
        ("calls", f"{answer.calls:,}" if answer.calls > 1 else ""), ("units", show_units(answer.units)),
        ("used this month", used), ("price", answer.price_id or "free"),
        *(("free after it", show_allowance(a)) for a in answer.allowances),
        ("holds until", output.when(answer.valid_until)),
    ])  # fmt: skip
    if len(answer.lines) > 1:
        output.table(
            ["what", "units", "amount"],
            [
                (_said(line), f"{line.units:,}" if line.units else "", money.show(line.amount_nanos, answer.currency))
                for line in answer.lines
            ],
            empty="", right=["units", "amount"],
        )  # fmt: skip


def _said(line: inference_pb2.QuoteLine) -> str:
    kind = inference_pb2.QuoteLine
    tier = f"tier {line.tier}"
    return {
        kind.KIND_UNITS: line.meter, kind.KIND_FREE: f"{line.meter}, free", kind.KIND_TIER: f"{line.meter}, {tier}",
        kind.KIND_TIER_FLAT: f"{line.meter}, {tier} once", kind.KIND_PACKAGE: f"{line.meter}, packages",
        kind.KIND_MINIMUM: "up to the least of a call", kind.KIND_DISCOUNT: "discount",
    }[line.kind]  # fmt: skip
