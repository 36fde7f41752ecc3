"""The tables of reviews, one typed method per named query."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from mercat.auth.v1 import auth_pb2
from mercat.marketplace.v1 import reviews_pb2

from services.common import ids
from services.common.db import Connection, load_queries

Row = Mapping[str, Any]
LAST = "~"  # sorts after every id


class ReviewStore:
    """Reads and writes within the transaction of the connection given."""

    def __init__(self) -> None:
        self._q = load_queries("services.marketplace.reviews")

    async def get_review(self, c: Connection, review_id: str) -> Row | None:
        return await self._q.get_review(c, review_id=review_id)  # type: ignore[no-any-return]

    async def write_review(
        self, c: Connection, caller: auth_pb2.Principal, request: reviews_pb2.WriteReviewRequest, now: datetime
    ) -> Row:
        """Adds the caller's review of a version, or changes it. Its listing is locked."""
        said = {
            "user_id": caller.user_id, "author": caller.handle, "rating": request.rating, "comment": request.comment,
            "now": now,
        }  # fmt: skip
        of = {"org_id": caller.org_id, "model": request.model, "version": request.version}
        known = await self._q.get_own_review(c, **of)
        if known is None:
            return await self._q.add_review(c, id=ids.new("rev"), **of, **said)  # type: ignore[no-any-return]
        return await self._q.edit_review(c, id=known["id"], **said)  # type: ignore[no-any-return]

    async def delete_review(self, c: Connection, org_id: str, model: str, version: str) -> None:
        await self._q.delete_review(c, org_id=org_id, model=model, version=version)

    async def list_reviews(self, c: Connection, model: str, version: str, before: str, most: int) -> Sequence[Row]:
        rows = self._q.list_reviews(c, model=model, version=version, before=before, most=most)
        return [r async for r in rows]

    async def list_edits(self, c: Connection, review_id: str, before: int, most: int) -> Sequence[Row]:
        return [r async for r in self._q.list_edits(c, review_id=review_id, before=before, most=most)]

    async def reply(self, c: Connection, review_id: str, reply: str, now: datetime) -> Row:
        return await self._q.reply(c, review_id=review_id, reply=reply, now=now)  # type: ignore[no-any-return]

    async def add_report(self, c: Connection, review_id: str, org_id: str, reason: str, now: datetime) -> None:
        """Once an organisation."""
        await self._q.add_report(c, id=ids.new("rpt"), review_id=review_id, org_id=org_id, reason=reason, now=now)

    async def list_reports(self, c: Connection, after: str, most: int) -> Sequence[Row]:
        return [r async for r in self._q.list_reports(c, after=after, most=most)]

    async def moderate(self, c: Connection, review_id: str, reason: str, now: datetime, *, hide: bool) -> Row:
        """Every report of it is decided with that."""
        return await self._q.moderate(c, review_id=review_id, hide=hide, reason=reason, now=now)  # type: ignore[no-any-return]


def review_of(row: Row, *, whole: bool = False) -> reviews_pb2.Review:
    """`whole`: for its author and administrators."""
    review = reviews_pb2.Review(
        review_id=row["id"], model=row["model"], version=row["version"], author=row["author"], rating=row["rating"],
        comment=row["comment"], edits=row["edits"], reply=row["reply"],
    )  # fmt: skip
    review.created_at.FromDatetime(row["created_at"])
    review.updated_at.FromDatetime(row["updated_at"])
    if row["replied_at"] is not None:
        review.replied_at.FromDatetime(row["replied_at"])
    if whole and row["hidden_at"] is not None:
        review.hidden, review.hidden_reason = True, row["hidden_reason"]
    return review


def edit_of(row: Row) -> reviews_pb2.ReviewEdit:
    edit = reviews_pb2.ReviewEdit(rating=row["rating"], comment=row["comment"])
    edit.written_at.FromDatetime(row["written_at"])
    return edit


def report_of(row: Row) -> reviews_pb2.ReviewReport:
    report = reviews_pb2.ReviewReport(review=review_of(row, whole=True), reason=row["report_reason"])
    report.created_at.FromDatetime(row["reported_at"])
    return report
