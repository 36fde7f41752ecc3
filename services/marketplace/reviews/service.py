"""Writing, answering, reporting and moderating reviews."""

from mercat.marketplace.v1 import reviews_pb2, reviews_pb2_grpc
from mercat.usage.v1 import callers_pb2, callers_pb2_grpc

from services.common import audit, pages
from services.common.clock import Clock
from services.common.db import Connection, Database
from services.common.errors import FailedPrecondition, ModelNotFound, NotFound, PermissionDenied
from services.common.rpc.channels import InternalChannel
from services.common.rpc.context import Context, caller
from services.marketplace.catalogue import Catalogue
from services.marketplace.reviews.store import LAST, ReviewStore, Row, edit_of, report_of, review_of
from services.marketplace.store import Listing, Store


class NeverCalled(FailedPrecondition, reason="NEVER_CALLED"):
    """Only who has called a version says how good it is."""


class OwnModel(PermissionDenied, reason="OWN_MODEL"):
    """Nobody reviews a model of their own."""


class ReviewNotFound(NotFound, reason="REVIEW_NOT_FOUND"):
    """No such review that is shown, or that the caller may answer."""

    def __init__(self, message: str = "there is no such review", **kwargs: object) -> None:
        super().__init__(message, **kwargs)  # type: ignore[arg-type]


class ReviewServicer(reviews_pb2_grpc.ReviewServiceServicer):
    """Serves `mercat.marketplace.v1.ReviewService`."""

    def __init__(
        self, database: Database, listings: Store, store: ReviewStore, catalogue: Catalogue, control: InternalChannel,
        clock: Clock,
    ) -> None:  # fmt: skip
        self._database = database
        self._listings = listings
        self._store = store
        self._catalogue = catalogue
        self._callers = callers_pb2_grpc.CallerServiceStub(control)
        self._clock = clock

    async def WriteReview(
        self, request: reviews_pb2.WriteReviewRequest, context: Context
    ) -> reviews_pb2.WriteReviewResponse:
        who = caller()
        async with self._database.connection() as connection:
            listing = _published(await self._listings.get_listing(connection, request.model), request.model)
        if listing.model.org_id == who.org_id:
            raise OwnModel(f"{request.model} is a model of your own")
        call = await self._callers.FindCall(
            callers_pb2.FindCallRequest(org_id=who.org_id, model=request.model, version=request.version)
        )
        if not call.request_id:
            raise NeverCalled(f"you have no successful call of {request.model}@{request.version}; call it first")
        async with self._database.transaction() as connection:
            _published(await self._listings.lock_listing(connection, request.model), request.model)
            row = await self._store.write_review(connection, who, request, self._clock.now())
            audit.about("review", row["id"])
            await self._listings.count_reviews(connection, request.model)
        self._catalogue.changed()
        return reviews_pb2.WriteReviewResponse(review=review_of(row, whole=True))

    async def DeleteReview(
        self, request: reviews_pb2.DeleteReviewRequest, context: Context
    ) -> reviews_pb2.DeleteReviewResponse:
        async with self._database.transaction() as connection:
            listing = await self._listings.lock_listing(connection, request.model)
            await self._store.delete_review(connection, caller().org_id, request.model, request.version)
            if listing is not None:
                await self._listings.count_reviews(connection, request.model)
        self._catalogue.changed()
        return reviews_pb2.DeleteReviewResponse()

    async def ListModelReviews(
        self, request: reviews_pb2.ListModelReviewsRequest, context: Context
    ) -> reviews_pb2.ListModelReviewsResponse:
        key, most = pages.decode(request.page_token, str), pages.size(request.page_size)
        async with self._database.connection() as connection:
            _published(await self._listings.get_listing(connection, request.model), request.model)
            rows = await self._store.list_reviews(
                connection, request.model, request.version, str(key[0]) if key else LAST, most + 1
            )
        response = reviews_pb2.ListModelReviewsResponse(reviews=map(review_of, rows[:most]))
        if len(rows) > most:
            response.next_page_token = pages.encode([rows[most - 1]["id"]])
        return response

    async def ListReviewEdits(
        self, request: reviews_pb2.ListReviewEditsRequest, context: Context
    ) -> reviews_pb2.ListReviewEditsResponse:
        key, most = pages.decode(request.page_token, int), pages.size(request.page_size)
        async with self._database.connection() as connection:
            review = await self._shown(connection, request.review_id)
            before = int(key[0]) if key else review["edits"]
            rows = await self._store.list_edits(connection, request.review_id, before, most + 1)
        response = reviews_pb2.ListReviewEditsResponse(edits=map(edit_of, rows[:most]))
        if len(rows) > most:
            response.next_page_token = pages.encode([rows[most - 1]["number"]])
        return response

    async def ReplyToReview(
        self, request: reviews_pb2.ReplyToReviewRequest, context: Context
    ) -> reviews_pb2.ReplyToReviewResponse:
        async with self._database.transaction() as connection:
            review = await self._shown(connection, request.review_id)
            listing = await self._listings.get_listing(connection, review["model"])
            if listing is None or listing.model.org_id != caller().org_id:
                raise ReviewNotFound
            row = await self._store.reply(connection, request.review_id, request.comment, self._clock.now())
        return reviews_pb2.ReplyToReviewResponse(review=review_of(row))

    async def ReportReview(
        self, request: reviews_pb2.ReportReviewRequest, context: Context
    ) -> reviews_pb2.ReportReviewResponse:
        async with self._database.transaction() as connection:
            await self._shown(connection, request.review_id)
            await self._store.add_report(
                connection, request.review_id, caller().org_id, request.reason, self._clock.now()
            )
        return reviews_pb2.ReportReviewResponse()

    async def ListReviewReports(
        self, request: reviews_pb2.ListReviewReportsRequest, context: Context
    ) -> reviews_pb2.ListReviewReportsResponse:
        key, most = pages.decode(request.page_token, str), pages.size(request.page_size)
        async with self._database.connection() as connection:
            rows = await self._store.list_reports(connection, str(key[0]) if key else "", most + 1)
        response = reviews_pb2.ListReviewReportsResponse(reports=map(report_of, rows[:most]))
        if len(rows) > most:
            response.next_page_token = pages.encode([rows[most - 1]["report_id"]])
        return response

    async def ModerateReview(
        self, request: reviews_pb2.ModerateReviewRequest, context: Context
    ) -> reviews_pb2.ModerateReviewResponse:
        async with self._database.transaction() as connection:
            known = await self._store.get_review(connection, request.review_id)
            if known is None:
                raise ReviewNotFound
            await self._listings.lock_listing(connection, known["model"])
            row = await self._store.moderate(
                connection, request.review_id, request.reason, self._clock.now(), hide=request.hide
            )
            if row is None:
                raise ReviewNotFound
            await self._listings.count_reviews(connection, known["model"])
        self._catalogue.changed()
        return reviews_pb2.ModerateReviewResponse(review=review_of(row, whole=True))

    async def _shown(self, connection: Connection, review_id: str) -> Row:
        """A review that anybody may see: of a published model, and not hidden. Raises ReviewNotFound."""
        row = await self._store.get_review(connection, review_id)
        if row is None or row["hidden_at"] is not None:
            raise ReviewNotFound
        if await self._listings.get_listing(connection, row["model"]) is None:
            raise ReviewNotFound
        return row


def _published(listing: Listing | None, model: str) -> Listing:
    """Raises ModelNotFound."""
    if listing is None:
        raise ModelNotFound(f"there is no published model {model}; find one with `mercat search`")
    return listing
