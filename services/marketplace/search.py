"""Searches as they are asked for: by words, by meaning, or both, page by page."""

import asyncio

from mercat.marketplace.v1 import marketplace_pb2

from services.common import pages
from services.common.errors import InvalidFields, Violation
from services.marketplace.cursors import MOST, Cursors, Search, hybrid, lexical, semantic
from services.marketplace.documents import YES
from services.marketplace.index import Index
from services.marketplace.meaning import Meaning, MeaningAbsent
from services.marketplace.questions import Range, Wanted
from services.marketplace.tasks import CATEGORIES

LEXICAL, SEMANTIC = marketplace_pb2.SEARCH_MODE_LEXICAL, marketplace_pb2.SEARCH_MODE_SEMANTIC
_SINGLE = ("task", "publisher", "language")
_CHOICES = {
    "category": tuple(CATEGORIES), "framework": ("onnx", "gguf", "pytorch", "tensorflow"),
    "modality": ("text", "image", "audio", "video", "tabular"),
}  # fmt: skip
Page = tuple[list[str], str]


class Searches:
    """Answers names of models; the listings are somebody else's."""

    def __init__(self, index: Index, meaning: Meaning) -> None:
        self._index = index
        self._meaning = meaning
        self._cursors = Cursors()

    async def page(self, request: marketplace_pb2.SearchModelsRequest) -> tuple[Search, Page, str]:
        """A page, the token of the next one, and why meaning was left out where it was."""
        most = min(request.page_size or 20, 100)
        wanted = _wanted(request)
        asked = (wanted.words, *sorted((n, tuple(v)) for n, v in wanted.filters.items()),
                 *sorted(wanted.ranges.items()), wanted.sort, request.mode)  # fmt: skip
        key = pages.decode(request.page_token, str, int, str)
        cursor, offset, last = (str(key[0]), int(key[1]), str(key[2])) if key else ("", 0, "")
        if not 0 <= offset < MOST:
            raise InvalidFields(violations=[Violation("page_token", f"pages end after {MOST} hits; narrow the search")])
        try:
            search = self._cursors.get(cursor, asked) if cursor else None
        except ValueError:
            raise InvalidFields(
                violations=[Violation("page_token", "is of another search; start without one")]
            ) from None
        absent = ""
        if search is None:
            search, absent = await self._begin(wanted, request.mode)
            offset = await asyncio.to_thread(_resumed, search, offset, last) if cursor else 0
            cursor = ""
        names = await asyncio.to_thread(search.page, offset, most)
        token, end = "", offset + most
        if end < min(search.places, MOST):
            cursor = cursor or self._cursors.hold(search, asked)
            token = pages.encode([cursor, end, names[-1] if names else last])
        return search, (names, token), absent

    async def _begin(self, wanted: Wanted, mode: int) -> tuple[Search, str]:
        snapshot = self._index.snapshot()
        absent = ""
        if mode != LEXICAL and wanted.order is None:
            try:
                near = await self._meaning.nearest(wanted.words)
            except MeaningAbsent as e:
                absent = str(e)
            else:
                return await asyncio.to_thread(semantic if mode == SEMANTIC else hybrid, snapshot, wanted, near), ""
        return await asyncio.to_thread(lexical, snapshot, wanted), absent


def _resumed(search: Search, offset: int, last: str) -> int:
    """Where a search that is not held any more goes on: after the model that was the last one, if that is near."""
    names = search.page(0, min(offset + 200, MOST))
    return names.index(last) + 1 if last in names else offset


def _wanted(request: marketplace_pb2.SearchModelsRequest) -> Wanted:
    filters: dict[str, list[str]] = {name: [getattr(request, name)] for name in _SINGLE if getattr(request, name)}
    for name, known in _CHOICES.items():
        if (value := getattr(request, name).lower()) and value not in known:
            raise InvalidFields(violations=[Violation(name, f"{value!r} is none of {', '.join(known)}")])
        if value:
            filters[name] = [value]
    if request.license:  # identifiers of SPDX mean the same however they are written
        filters["license_key"] = [request.license.lower()]
    if request.verified:
        filters["verified"] = [YES]
    if request.tags:
        filters["tags"] = [tag.lower() for tag in request.tags]
    if request.free_to_try:
        filters["trial"] = ["free"]
    ranges: dict[str, Range] = {}
    if request.HasField("min_price_nanos") or request.HasField("max_price_nanos"):
        most = request.max_price_nanos if request.HasField("max_price_nanos") else None
        ranges["price"] = (request.min_price_nanos, most)
    if request.min_rating:
        ranges["rating_micros"] = (round(request.min_rating * 1e6), None)
    if request.max_latency_us:
        ranges["latency"] = (None, request.max_latency_us)
    return Wanted(request.query, filters, request.sort, ranges)
