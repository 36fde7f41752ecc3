"""`mercat init`: a model.yaml and a card for a model's file, to be filled in and pushed."""

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from mercat.common.v1 import tensor_pb2
from rich.markup import escape

from services.cli import output
from services.cli.command import Session, command
from services.cli.session import Refusal
from services.cli.versions import show_spec

if TYPE_CHECKING:
    from services.cli.looking import Seen


def register(app: typer.Typer) -> None:
    app.command()(command(init))


def init(
    session: Session,
    file: Annotated[Path, typer.Argument(exists=True, readable=True, help="The model, or a SavedModel's folder.")],
    name: Annotated[str, typer.Option(help="The second half of publisher/name; else of the file's name.")] = "",
    force: Annotated[bool, typer.Option("--force", help="In the place of files that are there.")] = False,
) -> None:
    """Writes a model.yaml of what a model's file says, and a card, for `mercat push model.yaml`.

    Both lie beside the file, which is read and not run.

    Examples:

      mercat init model.onnx

      mercat init chat.gguf --name my-chat
    """
    from services.cli.looking import look  # slow to import

    folder = file.resolve().parent
    written, card = folder / "model.yaml", folder / "card.md"
    for path in (written, card):
        if path.exists() and not force:
            raise Refusal(f"{path} is there already.", "replace it with --force")
    seen = look(file)
    name = name or _name(file)
    takes = [_spec(t) for t in seen.inputs or ()]
    gives = [_spec(t) for t in seen.outputs]
    # The card first: where this dies, the command can be repeated with nothing lost of a model.yaml.
    card.write_text(_card(seen.title or name, seen.license, takes, gives))
    written.write_text(_yaml(file, name, seen, takes, gives))
    if session.json:
        output.say_json({"file": str(written), "card": str(card), "framework": seen.framework, "name": name,
                         "inputs": takes, "outputs": gives, "parameters": str(seen.parameters)})  # fmt: skip
        return
    output.facts([
        ("framework", seen.framework), ("size", output.size(seen.size_bytes)),
        ("weights", f"{seen.parameters:,}" if seen.parameters else ""),
        *(("takes", spec) for spec in takes), *(("gives", spec) for spec in gives),
    ])  # fmt: skip
    output.say(escape(f"Fill in {written} and {card}, then `mercat push {written}`."))


def _name(file: Path) -> str:
    return re.sub(r"[^a-z0-9._-]+", "-", file.stem.lower()).strip("._-")[:64].rstrip("._-") or "model"


def _spec(tensor: object) -> str:
    name, datatype, shape, axes, image = (getattr(tensor, f) for f in ("name", "datatype", "shape", "axes", "image"))
    return show_spec(tensor_pb2.TensorSpec(name=name, datatype=datatype, shape=shape, axes=axes, image=image))


def _yaml(file: Path, name: str, seen: "Seen", takes: list[str], gives: list[str]) -> str:
    weights = f", {seen.parameters:,} weights" if seen.parameters else ""
    said = [f"#   takes {_comment(spec)}" for spec in takes] + [f"#   gives {_comment(spec)}" for spec in gives]
    prices = ["input_tokens=0.10/1M", "output_tokens=0.40/1M"][: 1 if seen.tokenizer else 2]
    prices = prices if seen.text else ["requests=0.001"]
    lines = [
        "# What `mercat push model.yaml` sends. Keys are that command's options; one that is given there wins",
        "# over what is said here, and an empty value is as if it were not here. Paths are beside this file.",
        f"artifact: {json.dumps(file.name)} # {seen.framework}, {output.size(seen.size_bytes)}{weights}",
        *said,
        *(["data: # values that lie beside it", *(f"  - {json.dumps(d)}" for d in seen.data)] if seen.data else []),
        *(
            [f"tokenizer: {json.dumps(seen.tokenizer)} # goes inside, so that callers send texts"]
            if seen.tokenizer
            else []
        ),
        *(["context: 0 # tokens of a text; 0: as the tokenizer says"] if seen.tokenizer else []),
        "",
        f"name: {json.dumps(name)} # the second half of publisher/name",
        'version: "1.0.0" # a semantic version; each push is another one',
        'notes: ""',
        "",
        "# About the model. Read when it is new; later `mercat models update`.",
        'summary: "" # needed: one line',
        f"title: {json.dumps(seen.title)}",
        f"category: {json.dumps(seen.category)} # needed: nlp, vision, audio, multimodal or other",
        f"task: {json.dumps(seen.task)} # needed: such as text-embedding; `mercat explore tasks` lists those known",
        'license: "" # an SPDX expression such as Apache-2.0; empty: as the card says',
        "tag: []",
        'homepage: ""',
        "card: card.md",
        "",
        "# What a call costs, US dollars; without this calls are free.",
        "# price:",
        *(f"#   - {price}" for price in prices),
    ]
    if seen.inputs == ():  # it does not say
        lines += ["", "# What it takes: needed, since TorchScript does not say.", "# input:", '#   - "x=FP32[-1,4]"']
    if not seen.text:
        lines += ["", "# Calls are run together, up to so many rows; every tensor needs a first axis of any length."]
        lines += [f"{'' if seen.batched else '# '}max-batch-size: {16 if seen.batched else 0}"]
    lines += ["", "# Requests that show the model, with which everybody can try it: a JSON file each, such as"]
    lines += [f"# {_request(seen)}", "# sample:", "#   - A first try=sample.json"]
    return "\n".join(lines) + "\n"


def _request(seen: "Seen") -> str:
    """A request's body, as far as the file tells."""
    if seen.text:
        return json.dumps(
            {"inputs": ["A text."]} if seen.tokenizer else {"prompt": "Once upon a time", "max_tokens": 20}
        )
    tensors = [{"name": t.name, "datatype": t.datatype, "shape": [max(n, 1) for n in t.shape], "data": ["…"]}
               for t in seen.inputs or ()]  # fmt: skip
    return json.dumps({"inputs": tensors or [{"name": "x", "data": ["…"]}]}, ensure_ascii=False)


def _card(title: str, license_: str, takes: list[str], gives: list[str]) -> str:
    shapes = "\n".join([*(f"- takes `{_comment(s)}`" for s in takes), *(f"- gives `{_comment(s)}`" for s in gives)])
    return f"""---
# Empty values are as if they were not here.
license: {json.dumps(license_)} # an SPDX expression such as Apache-2.0
language: [] # BCP 47 tags, such as en or pt-BR
datasets: [] # what it was made with
base_model: [] # what it was made from: publisher/name here, or a name elsewhere
intended_use: "" # what it is for, and what not
metrics: [] # such as {{name: accuracy, value: 0.93, dataset: name}}
---
# {title}

What it does, for whom.

## Inputs and outputs

{shapes or "What it takes and gives."}

## Limits

Where it is wrong, and what it must not be used for.
"""


def _comment(text: str) -> str:
    """On one line."""
    return " ".join(text.split())
