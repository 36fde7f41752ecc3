"""Models as commands list them."""

from collections.abc import Iterable

from mercat.marketplace.v1 import marketplace_pb2

from services.cli import output
from services.cli.prices import show_price

MARK = " ✓"  # of a verified publisher
HEAD = ["model", "by", "version", "task", "license", "price", "rating", "p50 ms", "calls", "summary"]
_WHOLE = ["model", "version", "task", "license"]
_SPARE = ["calls", "license", "version", "p50 ms", "task", "by"]


def show_hits(hits: Iterable[marketplace_pb2.SearchHit], *, empty: str) -> None:
    """A table; what was never measured or rated shows a dash."""
    rows = [
        (
            hit.model, show_publisher(hit.publisher), hit.latest_version, hit.task, hit.license, show_price(hit.price),
            show_rating(hit), show_latency(hit.p50_latency_us), f"{hit.total_requests:,}", hit.summary,
        )
        for hit in hits
    ]  # fmt: skip
    output.table(HEAD, rows, empty=empty, right=["rating", "p50 ms", "calls"], whole=_WHOLE, spare=_SPARE)


def show_publisher(mark: marketplace_pb2.PublisherMark) -> str:
    """`Acme Research ✓`: its name for people, else its handle, and whether it is verified."""
    return f"{mark.display_name or mark.publisher}{MARK if mark.verified else ''}"


def show_rating(hit: marketplace_pb2.SearchHit | marketplace_pb2.Listing) -> str:
    return f"{hit.rating:.1f} ({hit.review_count})" if hit.review_count else "–"


def show_latency(microseconds: int) -> str:
    return f"{microseconds / 1000:.1f}" if microseconds else "–"
