"""`mercat models review`: what a version in review is judged by."""

from typing import Annotated

import typer
from mercat.registry.v1 import registry_pb2

from services.cli import output
from services.cli.command import Session, command
from services.cli.prices import show_price
from services.cli.versions import standing

_RESULTS = {
    registry_pb2.CHECK_RESULT_PASSED: "passed",
    registry_pb2.CHECK_RESULT_WARNING: "look",
    registry_pb2.CHECK_RESULT_FAILED: "failed",
}
_LONG = 100  # characters of a value that a table shows


def register(models: typer.Typer) -> None:
    models.command()(command(review))


def review(
    session: Session,
    version: Annotated[
        str, typer.Argument(metavar="MODEL[@VERSION]", help="Without a version: the newest that is not published.")
    ],
) -> None:
    """Shows what a version is judged by: what differs from the last published one, and what was checked and decided.

    For its owner and administrators.

    Examples: mercat models review ada/adder --profile admin · mercat models review adder@1.1.0
    """
    name, _, number = version.partition("@")
    model = session.full_name(name)
    number = number or _waiting(session, model)
    request = registry_pb2.GetVersionReviewRequest(model=model, version=number)
    found = session.client.registry.GetVersionReview(request).review
    if session.json:
        output.say_json(found)
        return
    made = found.version
    output.facts([
        ("version", f"{made.model}@{made.version}"), ("state", standing(made)),
        ("compared with", found.base or "nothing"),
        ("price", show_price(found.price)),
        *((f"from {output.when(p.effective_at)}", show_price(p)) for p in found.upcoming_prices),
        ("notes", made.release_notes),
    ])  # fmt: skip
    output.table(
        ["check", "result", "what"], [(c.name, _RESULTS.get(c.result, ""), c.detail) for c in found.checks], empty=""
    )
    output.table(
        ["what", "before", "now"],
        [(change.subject, _short(change.before), _short(change.after)) for change in found.changes],
        empty=f"Nothing differs from {found.base}.",
    )
    if found.card_diff:
        typer.echo(output.clean(found.card_diff))
    if found.decisions:
        output.table(
            ["decided (UTC)", "result", "reason"],
            [(output.when(d.created_at), "approved" if d.approved else "sent back", d.reason) for d in found.decisions],
            empty="",
        )
    output.facts([
        ("see", f"mercat models card {made.model}"),
        ("next", f"mercat models approve {made.model}@{made.version}, or reject it with --reason"
         if made.state == registry_pb2.VERSION_STATE_REVIEW else ""),
    ])  # fmt: skip


def _waiting(session: Session, model: str) -> str:
    """The newest version that waits for review, or else the newest that was not published."""
    request = registry_pb2.ListVersionsRequest(model=model, page_size=100)
    found = session.client.registry.ListVersions(request).versions
    waits = [v for v in found if v.review == registry_pb2.REVIEW_STANDING_REQUESTED]
    fresh = waits or [v for v in found if not v.HasField("published_at")]
    if not fresh:
        raise typer.BadParameter(f"no version of {model} waits for review; name one as {model}@1.0.0")
    return fresh[0].version


def _short(text: str) -> str:
    text = text or "–"
    return text if len(text) <= _LONG else text[: _LONG - 1] + "…"
