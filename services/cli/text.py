"""`mercat chat`, `mercat generate`, `mercat embed` and `mercat tokens`."""

import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from mercat.inference.v1 import text_pb2

from services.cli import output
from services.cli.command import Session, command
from services.cli.inputs import read
from services.cli.session import Refusal
from services.common import money

_SHOWN = 6  # numbers of an embedding
_TIMEOUT = 600.0  # seconds

Model = Annotated[str, typer.Argument(help="publisher/name, with @1.4.2 or :alias for a version.")]
MaxTokens = Annotated[int, typer.Option(min=0, help="The most tokens of an answer; 0: until the model stops.")]
Temperature = Annotated[float | None, typer.Option(min=0, max=2, help="0: always the likeliest token.")]
TopP = Annotated[float | None, typer.Option(min=0, max=1, help="Only the likeliest tokens of this probability.")]
TopK = Annotated[int | None, typer.Option(min=0, help="Only so many of the likeliest tokens.")]
Seed = Annotated[int | None, typer.Option(help="The same seed and request give the same text.")]
Stop = Annotated[list[str] | None, typer.Option(metavar="TEXT", help="End before this text. Repeatable.")]
Schema = Annotated[str, typer.Option(metavar="FILE", help="Answer with JSON that fits this JSON Schema.")]
System = Annotated[str, typer.Option(metavar="TEXT", help="What the model is told to be, before the conversation.")]


def register(app: typer.Typer) -> None:
    for one in (chat, generate, embed, tokens):
        app.command()(command(one))


def _sampling(
    max_tokens: int, temperature: float | None, top_p: float | None, top_k: int | None, seed: int | None,
    stop: list[str] | None, schema: str,
) -> text_pb2.Sampling:  # fmt: skip
    given: dict[str, Any] = {"temperature": temperature, "top_p": top_p, "top_k": top_k, "seed": seed}
    made = text_pb2.Sampling(
        max_tokens=max_tokens, stop=stop or (), **{k: v for k, v in given.items() if v is not None}
    )
    if schema:
        made.json_schema = read(schema).decode()
    return made


class Printer:
    """Writes an answer as it comes, and what it cost when it has ended."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._began = time.monotonic()
        self.text = ""
        self._request_id = ""

    def run(self, stream: Iterable[Any]) -> None:
        """Raises KeyboardInterrupt when the person at the terminal has read enough."""
        usage = text_pb2.TextUsage()
        for message in stream:
            self._request_id = message.request_id or self._request_id
            if self._session.json:
                output.say_json(message, line=True)
                sys.stdout.flush()
            elif message.index == 0 and message.text:
                sys.stdout.write("\n".join(output.clean(line) for line in message.text.split("\n")))
                sys.stdout.flush()
            self.text += message.text if message.index == 0 else ""
            if message.HasField("usage"):
                usage = message.usage
        if self._session.json:
            return
        sys.stdout.write("\n")
        sys.stdout.flush()
        seconds = max((usage.total_us - usage.first_token_us) / 1e6, 1e-6)
        rate = f"{max(usage.output_tokens - 1, 0) / seconds:,.0f} tokens/s" if usage.output_tokens > 1 else ""
        cached = f" ({usage.cached_input_tokens} cached)" if usage.cached_input_tokens else ""
        load = f"loaded in {usage.cold_start_ms:,} ms" if usage.cold_start_ms else ""
        parts = [
            f"{usage.input_tokens} tokens in{cached}", f"{usage.output_tokens} out", rate,
            f"first after {output.duration(usage.first_token_us)}", load, money.show(usage.cost_nanos),
            self._request_id,
        ]  # fmt: skip
        output.console(error=True).print(f"[dim]{' · '.join(part for part in parts if part)}[/]")


def chat(
    session: Session,
    model: Model,
    message: Annotated[str, typer.Argument(help="What to say; - is standard input. Without it: a conversation.")] = "",
    system: System = "",
    max_tokens: MaxTokens = 0,
    temperature: Temperature = None,
    top_p: TopP = None,
    top_k: TopK = None,
    seed: Seed = None,
    stop: Stop = None,
    json_schema: Schema = "",
) -> None:
    """Talks with a chat model. The answer appears as it is made; then what it cost.

    Examples:

      mercat chat mercat/smollm2 "What is the capital of France?"

      mercat chat mercat/smollm2 --system "Answer in one sentence." --temperature 0.2

      git diff | mercat chat mercat/smollm2 - --system "Summarise this change."
    """
    sampling = _sampling(max_tokens, temperature, top_p, top_k, seed, stop, json_schema)
    history = [text_pb2.ChatMessage(role="system", content=system)] if system else []
    if message or not output.is_terminal():
        said = message if message and message != "-" else sys.stdin.read()
        history.append(text_pb2.ChatMessage(role="user", content=said))
        Printer(session).run(_chat(session, model, history, sampling))
        return
    output.say(f"[dim]Talking with {model}. Ctrl-C ends an answer, Ctrl-D or an empty line the conversation.[/]")
    while said := _asked():
        history.append(text_pb2.ChatMessage(role="user", content=said))
        printer = Printer(session)
        stream = _chat(session, model, history, sampling)
        try:
            printer.run(stream)
        except KeyboardInterrupt:
            stream.close()
            output.say("\n[dim]ended; what you have read of it is charged[/]")
        history.append(text_pb2.ChatMessage(role="assistant", content=printer.text))


def _asked() -> str:
    try:
        return output.console().input("[bold]you ›[/] ").strip()
    except (EOFError, KeyboardInterrupt):
        output.say("")
        return ""


def _chat(session: Session, model: str, history: list[text_pb2.ChatMessage], sampling: text_pb2.Sampling) -> Any:
    request = text_pb2.ChatRequest(model=model, messages=history, sampling=sampling)
    return session.client.text.Chat(request, timeout=_TIMEOUT)


def generate(
    session: Session,
    model: Model,
    prompt: Annotated[str, typer.Argument(help="What the model goes on with; - is standard input.")],
    max_tokens: MaxTokens = 0,
    temperature: Temperature = None,
    top_p: TopP = None,
    top_k: TopK = None,
    seed: Seed = None,
    stop: Stop = None,
    json_schema: Schema = "",
    regex: Annotated[str, typer.Option(help="Answer with text that fits this regular expression.")] = "",
) -> None:
    """Goes on with a text, without a chat template.

    Example: mercat generate mercat/smollm2 "Once upon a time" --max-tokens 60
    """
    sampling = _sampling(max_tokens, temperature, top_p, top_k, seed, stop, json_schema)
    if regex:
        sampling.regex = regex
    request = text_pb2.GenerateRequest(
        model=model, prompt=sys.stdin.read() if prompt == "-" else prompt, sampling=sampling
    )
    Printer(session).run(session.client.text.Generate(request, timeout=_TIMEOUT))


def embed(
    session: Session,
    model: Model,
    texts: Annotated[list[str] | None, typer.Argument(help="Texts; none: the lines of standard input.")] = None,
    to: Annotated[Path | None, typer.Option("--output", "-o", help="Write the vectors to this .npy file.")] = None,
    truncate: Annotated[bool, typer.Option(help="Cut off what is longer than the model takes.")] = False,
) -> None:
    """Turns texts into vectors of length 1; of several, shows how close each is to the first.

    Examples:

      mercat embed mercat/minilm "a cat on a mat" "a kitten on a rug" "the stock market"

      mercat embed mercat/minilm --output vectors.npy < sentences.txt
    """
    if to is not None and to.suffix != ".npy":
        raise typer.BadParameter(f"{to}: write to a file that ends in .npy")
    given = texts or [line.rstrip("\n") for line in sys.stdin if line.strip()]
    answer = session.client.text.Embed(
        text_pb2.EmbedRequest(model=model, inputs=given, truncate=truncate), timeout=_TIMEOUT
    )
    vectors = np.array([one.values for one in answer.embeddings], np.float32)
    if to is not None:
        try:
            np.save(to, vectors, allow_pickle=False)
        except OSError as error:
            raise Refusal(f"{to} cannot be written ({error.strerror}).", "the call was made and charged") from None
    if session.json:
        output.say_json(answer)
        return
    rows = [
        (text[:60], ", ".join(f"{v:.4f}" for v in vector[:_SHOWN]) + ", …", f"{float(vector @ vectors[0]):.3f}")
        for text, vector in zip(given, vectors, strict=True)
    ]
    headings = ["text", f"vector of {vectors.shape[1]}", "cosine to the first"]
    output.table(headings, rows, empty="", right=headings[2:])
    output.facts([
        ("version", f"{answer.model}@{answer.version}"), ("tokens", f"{answer.input_tokens:,}"),
        ("cost", money.show(answer.cost_nanos)), ("request", answer.request_id),
        ("written", str(to) if to is not None else ""),
    ])  # fmt: skip


def tokens(
    session: Session,
    model: Model,
    text: Annotated[str, typer.Argument(help="A prompt; - is standard input.")],
) -> None:
    """Counts a prompt's tokens. Free.

    Example: mercat tokens mercat/smollm2 "How long is this?"
    """
    prompt = sys.stdin.read() if text == "-" else text
    answer = session.client.text.CountTokens(text_pb2.CountTokensRequest(model=model, prompt=prompt))
    if session.json:
        output.say_json(answer)
        return
    output.facts([
        ("version", f"{answer.model}@{answer.version}"), ("tokens", f"{answer.tokens:,} of {answer.context_tokens:,}"),
    ])  # fmt: skip
