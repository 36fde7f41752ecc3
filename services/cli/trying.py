"""`mercat try`: a sample of a model, run as a call of one's own."""

import json
import time
from collections.abc import Iterable
from typing import Annotated, Any

import typer
from google.protobuf import json_format
from mercat.inference.v1 import inference_pb2, text_pb2
from mercat.registry.v1 import registry_pb2

from services.cli import output
from services.cli.command import Session, command
from services.cli.infer import labels_of, show_answer
from services.cli.models import listing_of
from services.cli.prices import show_allowance
from services.cli.session import Refusal
from services.cli.text import Printer
from services.cli.versions import show_samples

_TIMEOUT = 600.0  # seconds


def register(app: typer.Typer) -> None:
    app.command("try")(command(try_))


def try_(
    session: Session,
    model: Annotated[str, typer.Argument(help="publisher/name, with @1.4.2 or :alias for a version.")],
    sample: Annotated[str, typer.Option("--sample", "-s", help="Its number, from 1 on, or its title.")] = "1",
    list_: Annotated[bool, typer.Option("--list", help="Show the samples, and run none.")] = False,
) -> None:
    """Runs a sample of a model with your account: what it answers, what it cost, and what is free of it still.

    Examples:

      mercat try mercat/minilm

      mercat try ada/adder --list

      mercat try ada/adder@1.0.0 --sample "Two numbers" --json
    """
    found, version = _version(session, model)
    if list_:
        if session.json:
            output.say_json({"samples": [output.document(s) for s in version.samples]})
        else:
            output.facts(show_samples(version.samples) or [("samples", "none")])
        return
    number, chosen = _chosen(version, sample)
    body = json.loads(chosen.request_json)
    reference = f"{found.model}@{version.version}"
    if not session.json:
        output.facts([("version", reference), (f"sample {number}", chosen.title or "untitled")])
    if version.text.kind == registry_pb2.TEXT_KIND_DECODER:
        answered = _text(session, reference, body)
    else:
        answered = _predict(session, reference, body, version)
    left = listing_of(session, found).allowances
    if session.json:
        said = {"model": reference, "sample": {"number": number, "title": chosen.title, "request": body}}
        output.say_json(said | answered | {"allowances": [output.document(allowance) for allowance in left]})
    else:
        output.facts([("free", show_allowance(allowance)) for allowance in left])


def _version(session: Session, reference: str) -> tuple[registry_pb2.Model, registry_pb2.Version]:
    """The model and the version of it that a call would be answered by."""
    name, _, number = reference.partition("@")
    name, _, alias = name.partition(":")
    model = session.client.registry.GetModel(registry_pb2.GetModelRequest(model=session.full_name(name))).model
    if alias and alias not in model.aliases:
        raise Refusal(f"{model.model} has no alias {alias}.")
    number = number or (model.aliases[alias] if alias else model.latest_version)
    if not number:
        raise Refusal(f"{model.model} has no published version.")
    request = registry_pb2.GetVersionRequest(model=model.model, version=number)
    return model, session.client.registry.GetVersion(request).version


def _chosen(version: registry_pb2.Version, wanted: str) -> tuple[int, registry_pb2.Sample]:
    for number, sample in enumerate(version.samples, 1):
        if wanted in (str(number), sample.title):
            return number, sample
    name = f"{version.model}@{version.version}"
    if not version.samples:
        raise Refusal(f"{name} has no samples.", f"`mercat models show {name}` says what it takes; call it yourself")
    raise Refusal(f"{name} has no sample {wanted!r}.", f"`mercat try {name} --list` shows those that it has")


def _predict(session: Session, reference: str, body: Any, version: registry_pb2.Version) -> dict[str, Any]:
    request = json_format.ParseDict({**body, "model": reference}, inference_pb2.PredictRequest())
    began = time.monotonic()
    answer = session.client.inference.Predict(request, timeout=_TIMEOUT)
    if not session.json:
        show_answer(answer, time.monotonic() - began, labels_of(version))
    return {"answer": output.document(answer)}


def _text(session: Session, reference: str, body: Any) -> dict[str, Any]:
    text, asked = session.client.text, {**body, "model": reference}
    stream: Iterable[Any]
    if "messages" in body:
        stream = text.Chat(json_format.ParseDict(asked, text_pb2.ChatRequest()), timeout=_TIMEOUT)
    else:
        stream = text.Generate(json_format.ParseDict(asked, text_pb2.GenerateRequest()), timeout=_TIMEOUT)
    if session.json:
        return {"messages": [output.document(message) for message in stream]}
    Printer(session).run(stream)
    return {}
