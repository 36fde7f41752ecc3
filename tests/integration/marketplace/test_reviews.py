"""Reviews are of who has called, one each, and what they add up to sorts models."""

import time
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest
from mercat.inference.v1 import inference_pb2
from mercat.marketplace.v1 import marketplace_pb2 as m
from mercat.marketplace.v1 import reviews_pb2 as v
from mercat.registry.v1 import registry_pb2

from services.common.errors import from_rpc_error
from tests import graphs
from tests.expect import fails
from tests.platform import Account, Platform


class Market:
    """A model, and people who have called it."""

    def __init__(self, platform: Platform) -> None:
        self.platform = platform
        self.owner = platform.publisher()
        self.model = platform.publish(self.owner, graphs.tiny())

    def caller(self, model: str = "") -> Account:
        person = self.platform.sign_up()
        x = inference_pb2.Tensor(name="x", datatype="FP32", shape=[1, 4], raw=bytes(16))
        person.inference.Predict(inference_pb2.PredictRequest(model=model or self.model, inputs=[x]))
        return person

    def write(
        self, person: Account, rating: int, comment: str = "", *, model: str = "", patience: float = 5
    ) -> v.Review:
        """A call shows up within a second."""
        request = v.WriteReviewRequest(model=model or self.model, version="1.0.0", rating=rating, comment=comment)
        deadline = time.monotonic() + patience
        while True:
            try:
                return person.reviews.WriteReview(request).review
            except grpc.RpcError as e:
                if from_rpc_error(e).reason != "NEVER_CALLED" or time.monotonic() > deadline:
                    raise
                time.sleep(0.05)

    def shown(self, model: str = "") -> list[v.Review]:
        request = v.ListModelReviewsRequest(model=model or self.model)
        return list(self.platform.anonymous.reviews.ListModelReviews(request).reviews)

    def listing(self, model: str = "") -> m.Listing:
        request = m.GetListingRequest(model=model or self.model)
        return self.platform.anonymous.marketplace.GetListing(request).listing


@pytest.fixture
def market(platform: Platform) -> Market:
    return Market(platform)


def test_only_who_has_called_reviews_and_nobody_their_own(platform: Platform, market: Market) -> None:
    idle, caller = platform.sign_up(), market.caller()
    assert fails(lambda: market.write(idle, 5, patience=0)).reason == "NEVER_CALLED"
    x = inference_pb2.Tensor(name="x", datatype="FP32", shape=[1, 5], raw=bytes(20))
    fails(idle.inference.Predict, inference_pb2.PredictRequest(model=market.model, inputs=[x]))
    assert fails(lambda: market.write(idle, 5, patience=1)).reason == "NEVER_CALLED"  # that call failed
    assert fails(lambda: market.write(market.owner, 5)).reason == "OWN_MODEL"
    market.write(caller, 4)
    other = v.WriteReviewRequest(model=market.model, version="2.0.0", rating=1)
    assert fails(caller.reviews.WriteReview, other).reason == "NEVER_CALLED"  # not this version
    for rating in (0, 6):
        request = v.WriteReviewRequest(model=market.model, version="1.0.0", rating=rating)
        assert fails(caller.reviews.WriteReview, request).reason == "INVALID_FIELDS"
    assert [r.author for r in market.shown()] == [caller.profile.username]


def test_one_each_and_what_was_said_before_is_kept(market: Market) -> None:
    caller = market.caller()
    first = market.write(caller, 2, "slow")
    with ThreadPoolExecutor(8) as many:
        said = list(many.map(lambda n: market.write(caller, 5, f"better {n}"), range(8)))
    assert {s.review_id for s in said} == {first.review_id}
    (review,) = market.shown()
    assert (review.rating, review.edits) == (5, 8)
    edits = caller.reviews.ListReviewEdits(v.ListReviewEditsRequest(review_id=review.review_id, page_size=5))
    rest = v.ListReviewEditsRequest(review_id=review.review_id, page_token=edits.next_page_token)
    older = list(market.platform.anonymous.reviews.ListReviewEdits(rest).edits)
    assert len(edits.edits) + len(older) == 8
    assert (older[-1].rating, older[-1].comment) == (2, "slow")
    again = market.write(caller, 5, review.comment)
    assert again.edits == 8  # nothing new was said
    assert (market.listing().review_count, market.listing().rating) == (1, 5.0)


def test_ratings_are_listed_sorted_by_and_taken_back(platform: Platform, market: Market) -> None:
    other = platform.publish(market.owner, graphs.tiny())
    callers = [market.caller() for _ in range(3)]
    for caller, rating in zip(callers, (5, 5, 4), strict=True):
        market.write(caller, rating)
    market.write(market.caller(other), 5, model=other)  # one review of five stars says less than three good ones
    listing = market.listing()
    assert (listing.review_count, round(listing.rating, 3)) == (3, 4.667)
    assert round(listing.weighted_rating, 4) == round((14 + 17.5) / 8, 4)

    def found(**fields: object) -> list[str]:
        request = m.SearchModelsRequest(publisher=market.owner.profile.username, **fields)
        return [h.model for h in platform.anonymous.marketplace.SearchModels(request).hits]

    deadline = time.monotonic() + 20
    while found(sort=m.SORT_ORDER_RATING) != [market.model, other] or found(min_rating=3.9) != [market.model]:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    for caller in callers:
        caller.reviews.DeleteReview(v.DeleteReviewRequest(model=market.model, version="1.0.0"))
    assert (market.listing().review_count, market.listing().rating) == (0, 0)
    assert market.shown() == []
    market.write(callers[0], 3)
    platform.admin().marketplace.RebuildIndex(m.RebuildIndexRequest(), timeout=60)
    assert market.listing().review_count == 1


def test_the_publisher_answers_and_nobody_else(platform: Platform, market: Market) -> None:
    review = market.write(market.caller(), 3, "no samples")
    request = v.ReplyToReviewRequest(review_id=review.review_id, comment="there are now")
    assert fails(platform.publisher().reviews.ReplyToReview, request).reason == "REVIEW_NOT_FOUND"
    market.owner.reviews.ReplyToReview(request)
    assert market.shown()[0].reply == "there are now"
    market.owner.reviews.ReplyToReview(v.ReplyToReviewRequest(review_id=review.review_id))
    assert not market.shown()[0].HasField("replied_at")


def test_reported_hidden_and_shown_again(platform: Platform, market: Market) -> None:
    author, admin = market.caller(), platform.admin()
    review = market.write(author, 1, "buy elsewhere")
    market.write(market.caller(), 5)
    for _ in range(2):  # counts once
        market.owner.reviews.ReportReview(v.ReportReviewRequest(review_id=review.review_id, reason="an advertisement"))

    def reported() -> int:
        answer = admin.reviews.ListReviewReports(v.ListReviewReportsRequest(page_size=1000))
        return [r.review.review_id for r in answer.reports].count(review.review_id)

    assert reported() == 1
    admin.reviews.ModerateReview(v.ModerateReviewRequest(review_id=review.review_id, hide=True, reason="spam"))
    assert reported() == 0
    assert [r.rating for r in market.shown()] == [5]
    assert market.listing().rating == 5
    edits = v.ListReviewEditsRequest(review_id=review.review_id)
    assert fails(platform.anonymous.reviews.ListReviewEdits, edits).reason == "REVIEW_NOT_FOUND"
    own = market.write(author, 5, "good after all")
    assert (own.hidden, own.hidden_reason) == (True, "spam")  # it is not shown again by being written anew
    assert market.listing().review_count == 1
    admin.reviews.ModerateReview(v.ModerateReviewRequest(review_id=review.review_id))
    assert market.listing().review_count == 2


def test_what_is_no_longer_published_shows_no_reviews(market: Market) -> None:
    review = market.write(market.caller(), 4)
    market.owner.registry.DeprecateVersion(registry_pb2.DeprecateVersionRequest(model=market.model, version="1.0.0"))
    deadline = time.monotonic() + 20
    search = m.SearchModelsRequest(publisher=market.owner.profile.username)
    while market.platform.anonymous.marketplace.SearchModels(search).hits:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert fails(market.shown).reason == "MODEL_NOT_FOUND"
    edits = v.ListReviewEditsRequest(review_id=review.review_id)
    assert fails(market.platform.anonymous.reviews.ListReviewEdits, edits).reason == "REVIEW_NOT_FOUND"
