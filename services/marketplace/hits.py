"""Listings as lists show them."""

from collections.abc import Sequence

from mercat.marketplace.v1 import marketplace_pb2

from services.marketplace.highlight import fold, highlights, matcher
from services.marketplace.tasks import modality


def hit(listing: marketplace_pb2.Listing, words: Sequence[str] = ()) -> marketplace_pb2.SearchHit:
    """`words`: what was searched for, as the index cuts it."""
    model = listing.model
    made = marketplace_pb2.SearchHit(
        model=model.model, display_name=model.display_name, summary=model.summary, category=model.category,
        task=model.task, tags=model.tags, framework=listing.version.framework, license=model.license,
        latest_version=model.latest_version, price=listing.price, published_at=model.published_at,
        total_requests=listing.total_requests, rating=listing.rating, review_count=listing.review_count,
        weighted_rating=listing.weighted_rating, p50_latency_us=listing.p50_latency_us,
        p95_latency_us=listing.p95_latency_us, modality=modality(model.category, model.task),
        visibility=model.visibility, free_to_try=listing.free_to_try, publisher=listing.publisher,
    )  # fmt: skip
    if words:
        texts = (("display_name", model.display_name), ("summary", model.summary), ("description", model.description))
        made.highlights.extend(highlights(texts, matcher([fold(w) for w in words])))
    return made
