"""What the index holds of a listing."""

from collections.abc import Iterator

import tantivy
from mercat.marketplace.v1 import marketplace_pb2
from tantivy import Document, SchemaBuilder

from services.common import pricing
from services.marketplace.tasks import modality

VERSION = 8  # of the schema; an index of another version is built anew
YES = "yes"
FACETS = (
    "category", "task", "tags", "framework", "license", "language", "modality", "price_band", "rating", "verified",
)  # fmt: skip
# How much a hit in a field counts.
BOOSTS = {"name": 8.0, "title": 5.0, "tags_text": 4.0, "task_text": 4.0, "summary": 2.0, "description": 1.0}
LOOSE = {
    "head": 2.0,
    "summary": 0.6,
}  # where typos are forgiven and beginnings found; `head` is the first four together
NUMBERS = ("published", "popularity", "price", "rating_micros", "latency", "recent", "trend")
NEVER_MEASURED = 2**62
_BANDS = ((0, "free"), (10**9, "up_to_1"), (10 * 10**9, "up_to_10"), (100 * 10**9, "up_to_100"))  # nanos


def schema() -> tantivy.Schema:
    builder = SchemaBuilder()
    builder.add_text_field("model", stored=True, tokenizer_name="raw", index_option="basic")
    for name in (*BOOSTS, "head"):
        builder.add_text_field(name, tokenizer_name="words", index_option="freq")
    for name in (*FACETS, "license_key", "publisher", "trial"):
        builder.add_text_field(name, tokenizer_name="raw", index_option="basic", fast=True)
    for name in NUMBERS:
        builder.add_integer_field(name, indexed=True, fast=True)
    return builder.build()


def document(listing: marketplace_pb2.Listing) -> Document:
    model = listing.model
    publisher, _, name = model.model.partition("/")
    tags = " ".join(model.tags)
    price = pricing.at_first(pricing.read(listing.price))
    trial = "free" if listing.free_to_try else ""
    made = Document()
    for field_name, text in (
        ("model", model.model), ("name", name), ("title", model.display_name), ("tags_text", tags),
        ("task_text", model.task), ("summary", model.summary), ("description", model.description),
        ("head", f"{name} {model.display_name} {tags} {model.task}"),
        ("category", model.category), ("task", model.task), ("framework", listing.version.framework),
        ("license", model.license), ("license_key", model.license.lower()), ("publisher", publisher),
        ("price_band", _band(price)), ("trial", trial),
        ("modality", modality(model.category, model.task)), *(("tags", tag) for tag in model.tags),
        *(("language", tag) for tag in _languages(listing)),
        ("verified", YES if listing.publisher.verified else ""),
        *(("rating", stars) for stars in _stars(listing.weighted_rating)),
    ):  # fmt: skip
        if text:
            made.add_text(field_name, text)
    made.add_integer("published", model.published_at.ToMilliseconds())
    made.add_integer("popularity", listing.total_requests)
    made.add_integer("price", price)
    made.add_integer("rating_micros", round(listing.weighted_rating * 1e6))
    made.add_integer("recent", listing.recent_requests)
    made.add_integer("trend", round(listing.trend * 1000))
    made.add_integer("latency", listing.p50_latency_us or NEVER_MEASURED)
    return made


def _band(price: int) -> str:
    """Of what a million units of each meter cost, nanos."""
    return next((name for most, name in _BANDS if price <= most), "more")


def _languages(listing: marketplace_pb2.Listing) -> list[str]:
    """Of the cards of model and version, with what they are kinds of: pt-BR is pt."""
    named = {*listing.model.card_metadata.languages, *listing.version.card_metadata.languages}
    return sorted(named | {tag.partition("-")[0] for tag in named})


def _stars(rating: float) -> Iterator[str]:
    """How many stars it has at least."""
    return (str(n) for n in range(1, int(rating) + 1))
