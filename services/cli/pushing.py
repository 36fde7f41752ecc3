"""`mercat push`: the model if it is new, the file, a version of it, its validation, its price, its review."""

import json
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import typer
from google.protobuf import json_format
from mercat.billing.v1 import billing_pb2
from mercat.registry.v1 import registry_pb2

from services.cli import declared, declaring, output, provenance, serving, visibility
from services.cli.command import Session
from services.cli.inputs import read, read_text
from services.cli.prices import parse_price, show_price
from services.cli.session import Refusal
from services.cli.telling import step
from services.cli.tokenizing import with_tokenizer
from services.cli.upload import digest_of, upload, validated
from services.cli.versions import findings, show_spec, show_text, standing
from services.common.errors import MercatError


def push(
    session: Session,
    file: Annotated[
        Path,
        typer.Argument(
            exists=True,
            readable=True,
            is_eager=True,
            callback=declared.given,
            help="The model: ONNX, GGUF, TorchScript, torch.export, or a SavedModel's folder; or a model.yaml that "
            "names it, with options of this command.",
        ),
    ],
    name: Annotated[str, typer.Option(help="The second half of publisher/name.")],
    version: Annotated[str, typer.Option(help="A semantic version; versions are immutable.")],
    summary: Annotated[str, typer.Option(help="One line. Needed for a new model.")] = "",
    category: Annotated[str, typer.Option(help="nlp, vision, audio, multimodal or other. For a new model.")] = "",
    task: Annotated[str, typer.Option(help="Such as text-embedding. For a new model.")] = "",
    license_: Annotated[str, typer.Option("--license", help="SPDX expression. For a new model.")] = "",
    display_name: Annotated[str, typer.Option("--title", help="Its name for people. For a new model.")] = "",
    tag: Annotated[list[str] | None, typer.Option(help="Repeatable. For a new model.")] = None,
    homepage: Annotated[str, typer.Option(help="Where more is to be read. For a new model.")] = "",
    card: Annotated[str, typer.Option(metavar="FILE", help="The model card, Markdown. For a new model.")] = "",
    price: Annotated[
        list[str] | None, typer.Option(metavar="METER=USD", help="What a call costs. Repeatable; none: as it was.")
    ] = None,
    private: Annotated[
        bool, typer.Option("--private", help="Nobody but your organisation is to know of it. For a new model.")
    ] = False,
    tokenizer: Annotated[str, typer.Option(metavar="FILE", help="tokenizer.json, to go inside an ONNX file.")] = "",
    context: Annotated[int, typer.Option(min=0, help="Tokens of a text, with --tokenizer; 0: as that says.")] = 0,
    chat_template: Annotated[str, typer.Option(metavar="FILE", help="Of a decoder, with --tokenizer: Jinja.")] = "",
    stop: Annotated[
        list[str] | None, typer.Option(metavar="TOKEN", help="Ends an answer, with --tokenizer. Repeatable.")
    ] = None,
    input_: declaring.Input = None,
    output_: declaring.Output = None,
    max_batch_size: serving.MaxBatchSize = 0,
    max_queue_delay_us: serving.MaxQueueDelay = 0,
    preferred_batch: serving.PreferredBatch = None,
    max_queue_size: serving.MaxQueueSize = 0,
    queue_timeout_us: serving.QueueTimeout = 0,
    timeout_ms: serving.Timeout = 0,
    priority_levels: serving.PriorityLevels = 0,
    default_priority: serving.DefaultPriority = 0,
    placement: serving.Placement = "embedded",
    cache_ttl: serving.CacheTtl = None,
    cache_price: serving.CachePrice = 0,
    pad: serving.Pad = None,
    pad_value: serving.PadValue = None,
    fallback_version: serving.FallbackVersion = "",
    sample: Annotated[
        list[str] | None, typer.Option(metavar="TITLE=FILE", help="A request that shows the model. Repeatable.")
    ] = None,
    labels: Annotated[
        list[str] | None, typer.Option(metavar="OUTPUT=FILE", help="What its positions mean: a JSON list. Repeatable.")
    ] = None,
    data: Annotated[
        list[str] | None,
        typer.Option(metavar="FILE", help="Values of an ONNX file that lie beside it, by its name. Repeatable."),
    ] = None,
    version_card: Annotated[str, typer.Option(metavar="FILE", help="About this version: Markdown.")] = "",
    notes: Annotated[str, typer.Option(help="What is new in this version.")] = "",
    source: provenance.Source = "",
    commit: provenance.Commit = "",
    builder: provenance.Builder = "",
    attest: provenance.Attest = "",
    attestation: provenance.Attestations = None,
    submit: Annotated[bool, typer.Option("--submit", help="Ask for its review at once.")] = False,
    publish: Annotated[bool, typer.Option("--publish", help="Publish it at once; of a private model.")] = False,
    wait: Annotated[float, typer.Option(min=1, help="Seconds to wait for the validation.")] = 300.0,
) -> int:
    """Uploads a model and waits until it is validated; a refusal says exactly why.

    Examples:

      mercat push model.onnx --name my-model --version 1.0.0 --summary "Embeds sentences" --category nlp
      --task text-embedding --license MIT --price requests=0.002 --submit

      mercat push model.onnx --name my-model --version 1.1.0 --notes "Smaller and faster"

      mercat push model.yaml --version 1.2.0

      mercat push chat.gguf --name my-chat --version 1.0.0 --summary "Chats" --category nlp
      --task text-generation --license MIT --price input_tokens=0.1/1M --price output_tokens=0.4/1M

      mercat push scripted.pt --name my-model --version 2.0.0 --input "x=FP32[-1,4]"

      mercat push saved_model/ --name my-model --version 2.1.0

      mercat push large.onnx --data large.onnx.data --name my-model --version 3.0.0

      mercat push model.onnx --name my-model --version 3.1.0 --attest signing.pem
      --source https://git.example/my-model --commit 2fd4e1c67a2d28fced849ee1bb76e7391b93eb12
    """
    if not tokenizer and (context or chat_template or stop):
        raise typer.BadParameter("--context, --chat-template and --stop go with --tokenizer")
    components = [parse_price(text) for text in price or ()]
    if not input_ and declaring.is_torchscript(file):
        text = "TorchScript does not say what it takes; declare every input, such as --input x=FP32[-1,4]"
        raise typer.BadParameter(f"{file}: {text}")
    request = registry_pb2.CreateVersionRequest(
        model=session.full_name(name), version=version, release_notes=notes,
        signature=declaring.signature(input_ or [], output_ or []),
        settings=registry_pb2.InferenceSettings(
            max_batch_size=max_batch_size, max_queue_delay_us=max_queue_delay_us, timeout_ms=timeout_ms,
            preferred_batch_sizes=sorted(set(preferred_batch or ())), max_queue_size=max_queue_size,
            queue_timeout_us=queue_timeout_us, priority_levels=priority_levels, default_priority_level=default_priority,
            placement=serving.placement(placement), response_cache=serving.cache(cache_ttl, cache_price),
            padding=serving.padding(pad or [], pad_value or []), fallback_version=fallback_version,
        ),
    )  # fmt: skip
    for text in sample or ():
        _add_sample(request, text)
    for text in labels or ():
        _add_labels(request, text)
    new = registry_pb2.CreateModelRequest(
        name=request.model.partition("/")[2], summary=summary, category=category, task=task, license=license_,
        display_name=display_name, tags=tag or [], homepage=homepage, description=read_text(card),
        visibility=visibility.PRIVATE if private else visibility.PUBLIC,
    )  # fmt: skip
    created, model = _ensure(session, request.model, new)
    quiet = session.json
    with TemporaryDirectory(prefix="mercat-") as folder:
        if file.is_dir():
            with step(f"packing {file.name}", quiet=quiet):
                file = declaring.packed(file, Path(folder))
        if tokenizer:
            file = with_tokenizer(
                file, read_text(tokenizer), Path(folder), context=context, template=read_text(chat_template),
                stops=stop or (),
            )  # fmt: skip
        request.digest = digest_of(file, quiet=quiet)
        upload(session.client, file, request.digest, quiet=quiet)
    for path in data or ():
        _add_file(session, request, Path(path), registry_pb2.FILE_ROLE_EXTERNAL_DATA)
    provenance.add(session, request, file.name, source, commit, builder, attest, attestation or [])
    if version_card:
        _add_file(session, request, Path(version_card), registry_pb2.FILE_ROLE_CARD)
    _begin(session, request)
    made = validated(session.client, request.model, version, wait, quiet=quiet)
    if made.state == registry_pb2.VERSION_STATE_REFUSED:
        return _refused(session, made)
    cost = _priced(session, request.model, components) if price else None
    if submit:
        asked = registry_pb2.SubmitVersionRequest(model=request.model, version=version)
        made = session.client.registry.SubmitVersion(asked).version
    if publish:
        at_once = registry_pb2.PublishVersionRequest(model=request.model, version=version)
        made = session.client.registry.PublishVersion(at_once).version
    if session.json:
        output.say_json({"created": created, "version": output.document(made)}
                        | ({"price": output.document(cost)} if cost is not None else {}))  # fmt: skip
        return 0
    output.facts([
        ("version", f"{made.model}@{made.version}"),
        *(("takes", show_spec(spec)) for spec in made.signature.inputs),
        *(("gives", show_spec(spec)) for spec in made.signature.outputs),
        *show_text(made),
        ("runs in", output.duration(made.measured_run_us) if made.measured_run_us else ""),
        ("price", show_price(cost) if cost is not None else ""),
        *_state(made, model),
    ])  # fmt: skip
    return 0


def _priced(session: Session, model: str, components: Sequence[billing_pb2.PriceComponent]) -> billing_pb2.Price:
    """The price in effect, made anew only where it is to be another: each push of a model.yaml says it again."""
    billing = session.client.billing
    now = billing.GetModelPrice(billing_pb2.GetModelPriceRequest(model=model)).price
    if now.price_id and list(now.components) == list(components) and not now.minimum_nanos:
        return now
    return billing.SetModelPrice(billing_pb2.SetModelPriceRequest(model=model, components=components)).price


def _state(made: registry_pb2.Version, model: registry_pb2.Model) -> list[tuple[str, str]]:
    """With what comes next."""
    reference = f"{model.model.partition('/')[2]}@{made.version}"
    if made.state == registry_pb2.VERSION_STATE_REVIEW:
        return [("state", "waits for review"), ("next", f"mercat models publish {reference}, once it is approved")]
    if made.state != registry_pb2.VERSION_STATE_DRAFT:
        return [("state", standing(made))]
    verb = "publish" if model.visibility == visibility.PRIVATE else "submit"
    return [("state", "draft"), ("next", f"mercat models {verb} {reference}")]


def _add_file(
    session: Session, request: registry_pb2.CreateVersionRequest, file: Path, role: registry_pb2.FileRole.ValueType
) -> None:  # fmt: skip
    if not file.is_file():
        raise Refusal(f"there is no file {file}.")
    digest = digest_of(file, quiet=session.json)
    upload(session.client, file, digest, quiet=session.json)
    request.files.add(name=file.name, role=role, digest=digest)


def _ensure(
    session: Session, model: str, new: registry_pb2.CreateModelRequest
) -> tuple[bool, registry_pb2.Model]:  # fmt: skip
    """Makes the model when the caller has none of that name; answers whether it did, and the model."""
    try:
        return False, session.client.registry.GetModel(registry_pb2.GetModelRequest(model=model)).model
    except MercatError as error:
        if error.reason != "MODEL_NOT_FOUND":
            raise
    from services.registry.cards import front_matter  # slow to import

    if not new.license and (said := front_matter.read(new.description, "card")):
        new.license = said.license
    missing = [f"--{field}" for field in ("summary", "category", "task", "license") if not getattr(new, field)]
    if missing:
        hint = "write them into your model.yaml, or give them as options; `mercat explore tasks` lists tasks"
        raise Refusal(f"{model} is new and needs {', '.join(missing)}.", hint)
    return True, session.client.registry.CreateModel(new).model


def _begin(session: Session, request: registry_pb2.CreateVersionRequest) -> None:
    """Makes the version. One of the same bytes and settings that is there already is taken up where it is, so that a
    push that was broken off can be repeated."""
    registry = session.client.registry
    try:
        registry.CreateVersion(request)
    except MercatError as error:
        if error.reason != "VERSION_EXISTS":
            raise
        known = registry_pb2.GetVersionRequest(model=request.model, version=request.version)
        there = registry.GetVersion(known).version
        going_on = (registry_pb2.VERSION_STATE_VALIDATING, registry_pb2.VERSION_STATE_DRAFT)
        if there.state not in going_on or there.digest != request.digest or there.settings != request.settings:
            raise error from None


def _refused(session: Session, version: registry_pb2.Version) -> int:
    if session.json:
        output.say_json({"version": output.document(version)})
    else:
        output.console(error=True).print(f"[bold red]mercat:[/] {version.model}@{version.version} was refused:")
        findings(version)
        output.say("Correct it and push it as another --version; this number is taken.")
    return output.REFUSED


def _add_sample(request: registry_pb2.CreateVersionRequest, text: str) -> None:
    title, separator, path = text.partition("=")
    if not separator:
        raise typer.BadParameter(f"{text!r} has no title; write it as TITLE=FILE")
    request.samples.add(title=title, request_json=read_text(path))


def _add_labels(request: registry_pb2.CreateVersionRequest, text: str) -> None:
    name, separator, path = text.partition("=")
    try:
        names = json.loads(read(path)) if separator else None
        json_format.ParseDict({"names": names}, request.labels[name])
    except (ValueError, json_format.ParseError):
        raise typer.BadParameter(f"{text!r} is no OUTPUT=FILE with a JSON list of texts") from None
