"""`mercat reviews`: what accounts say of the models that they called."""

from collections.abc import Iterable
from typing import Annotated

import typer
from mercat.marketplace.v1 import marketplace_pb2, reviews_pb2

from services.cli import output
from services.cli.command import Session, command
from services.cli.paging import Limit, gather

Model = Annotated[str, typer.Argument(help="publisher/name; a version as publisher/name@1.0.0")]
Versioned = Annotated[str, typer.Argument(help="publisher/name@1.0.0")]
Id = Annotated[str, typer.Argument(metavar="ID", help="rev_…, as `mercat reviews list` shows it.")]


def register(app: typer.Typer) -> None:
    reviews = typer.Typer(
        help="What accounts say of the models that they called.", no_args_is_help=True, rich_markup_mode="rich"
    )
    reviews.command("list")(command(list_reviews))
    reviews.command("write")(command(write))
    reviews.command("delete")(command(delete))
    reviews.command("edits")(command(edits))
    reviews.command("reply")(command(reply))
    reviews.command("report")(command(report))
    reviews.command("reports")(command(reports))
    reviews.command("hide")(command(hide))
    reviews.command("show")(command(show))
    app.add_typer(reviews, name="reviews")


def list_reviews(session: Session, model: Model, limit: Limit = 20) -> None:
    """Lists what is said of a model, the newest first.

    Example: mercat reviews list mercat/minilm
    """
    name, _, version = model.partition("@")
    request = reviews_pb2.ListModelReviewsRequest(model=session.full_name(name), version=version)
    answer = gather(session.client.reviews.ListModelReviews, request, "reviews", limit)
    if session.json:
        output.say_json(answer)
        return
    _table(answer.reviews, empty="Nobody has said anything yet.")


def write(
    session: Session,
    model: Model,
    rating: Annotated[int, typer.Option(min=1, max=5, help="Stars.")],
    comment: Annotated[str, typer.Option("--comment", "-m", help="In plain text.")] = "",
) -> None:
    """Says what you think of a version that you have called, or says it anew. Without a version: of the newest.

    Example: mercat reviews write mercat/minilm@1.0.0 --rating 5 -m "small and quick"
    """
    name, _, version = model.partition("@")
    if not version:
        asked = marketplace_pb2.GetListingRequest(model=session.full_name(name))
        version = session.client.marketplace.GetListing(asked).listing.model.latest_version
    name = session.full_name(name)
    request = reviews_pb2.WriteReviewRequest(model=name, version=version, rating=rating, comment=comment)
    _one(session, session.client.reviews.WriteReview(request).review)


def delete(session: Session, model: Versioned) -> None:
    """Takes back what you said of a version.

    Example: mercat reviews delete mercat/minilm@1.0.0
    """
    name, version = session.version_of(model)
    session.client.reviews.DeleteReview(reviews_pb2.DeleteReviewRequest(model=name, version=version))
    output.done("It is gone.", as_json=session.json)


def edits(session: Session, review: Id, limit: Limit = 20) -> None:
    """Shows what a review said before.

    Example: mercat reviews edits rev_…
    """
    request = reviews_pb2.ListReviewEditsRequest(review_id=review)
    answer = gather(session.client.reviews.ListReviewEdits, request, "edits", limit)
    if session.json:
        output.say_json(answer)
        return
    rows = [(e.written_at.ToDatetime().isoformat(" ", "minutes"), str(e.rating), e.comment) for e in answer.edits]
    output.table(["said", "stars", "comment"], rows, empty="It was never changed.")


def reply(session: Session, review: Id, comment: Annotated[str, typer.Argument(help="Empty: none.")]) -> None:
    """Answers a review of one of your models.

    Example: mercat reviews reply rev_… "mended in 1.1.0"
    """
    request = reviews_pb2.ReplyToReviewRequest(review_id=review, comment=comment)
    _one(session, session.client.reviews.ReplyToReview(request).review)


def report(session: Session, review: Id, reason: Annotated[str, typer.Argument(help="Why.")]) -> None:
    """Tells the administrators of a review that should not be there.

    Example: mercat reviews report rev_… "an advertisement"
    """
    session.client.reviews.ReportReview(reviews_pb2.ReportReviewRequest(review_id=review, reason=reason))
    output.done("It is reported.", as_json=session.json)


def reports(session: Session, limit: Limit = 20) -> None:
    """Lists reports that nobody decided on yet; for administrators.

    Example: mercat reviews reports
    """
    request = reviews_pb2.ListReviewReportsRequest()
    answer = gather(session.client.reviews.ListReviewReports, request, "reports", limit)
    if session.json:
        output.say_json(answer)
        return
    rows = [(r.review.review_id, r.review.model, r.reason, r.review.comment) for r in answer.reports]
    output.table(["review", "model", "reported for", "it says"], rows, empty="Nothing is reported.")


def hide(session: Session, review: Id, reason: Annotated[str, typer.Argument(help="For its author.")] = "") -> None:
    """Hides a review, which decides its reports; for administrators.

    Example: mercat reviews hide rev_… "an advertisement"
    """
    request = reviews_pb2.ModerateReviewRequest(review_id=review, hide=True, reason=reason)
    _one(session, session.client.reviews.ModerateReview(request).review)


def show(session: Session, review: Id) -> None:
    """Shows a review (again), which decides its reports; for administrators.

    Example: mercat reviews show rev_…
    """
    request = reviews_pb2.ModerateReviewRequest(review_id=review)
    _one(session, session.client.reviews.ModerateReview(request).review)


def _one(session: Session, review: reviews_pb2.Review) -> None:
    if session.json:
        output.say_json(review)
        return
    _table([review], empty="")
    if review.hidden:
        output.facts([("hidden", review.hidden_reason or "no reason was given")])


def _table(reviews: Iterable[reviews_pb2.Review], *, empty: str) -> None:
    rows = [
        (r.review_id, r.version, "★" * r.rating, r.author, r.comment, r.reply) for r in reviews
    ]  # fmt: skip
    output.table(["id", "version", "stars", "by", "comment", "publisher"], rows, empty=empty)
