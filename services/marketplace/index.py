"""The search index: tantivy, in this process, in a folder of the home. It can be lost at any time and built anew."""

import json
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import tantivy
from mercat.marketplace.v1 import marketplace_pb2
from tantivy import Document, Filter, Occur, Order, Query, SchemaBuilder, TextAnalyzerBuilder, Tokenizer

from services.common import pricing

VERSION = 2  # of the schema; an index of another version is built anew
FACETS = ("category", "task", "tags", "framework", "license")
# How much a hit in a field counts.
_BOOSTS = {"name": 8.0, "title": 5.0, "tags_text": 4.0, "task_text": 4.0, "summary": 2.0, "description": 1.0}
_MOST = 10_000  # hits that pages can reach


@dataclass(frozen=True)
class Wanted:
    """A search. Every filter given must hold."""

    words: str = ""
    filters: Mapping[str, Sequence[str]] = field(default_factory=dict)
    sort: int = marketplace_pb2.SORT_ORDER_RELEVANCE


class Index:
    """Documents by model name. A process that takes over from another has its index in a second folder beside it."""

    def __init__(self, folder: Path) -> None:
        try:
            self._open(folder)
        except ValueError:  # the other process still writes to it
            self._open(folder.with_name(f"{folder.name}-next"))

    def _open(self, folder: Path) -> None:
        self._folder = folder
        self.is_new = not self._is_current()
        if self.is_new:
            shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._schema = _schema()
        self._index = tantivy.Index(self._schema, str(folder), reuse=True)
        self._analyzer = (
            TextAnalyzerBuilder(Tokenizer.simple()).filter(Filter.lowercase()).filter(Filter.ascii_fold()).build()
        )
        self._index.register_tokenizer("words", self._analyzer)
        self._writer = self._index.writer(heap_size=30_000_000, num_threads=1)

    def _is_current(self) -> bool:
        try:
            return bool(json.loads((self._folder / "mercat.json").read_text())["version"] == VERSION)
        except (OSError, ValueError, KeyError, TypeError):
            return False

    def complete(self) -> None:
        """Marks the index as whole: the next start takes it as it is."""
        (self._folder / "mercat.json").write_text(json.dumps({"version": VERSION}))
        self.is_new = False

    def put(
        self, listings: Iterable[marketplace_pb2.Listing], *, gone: Iterable[str] = (), clear: bool = False
    ) -> None:
        """Writes listings and removes others, visible to searches when it returns. Blocks; call it in a thread."""
        if clear:
            self._writer.delete_all_documents()
        for model in gone:
            self._writer.delete_documents_by_term("model", model)
        for listing in listings:
            self._writer.delete_documents_by_term("model", listing.model.model)
            self._writer.add_document(_document(listing))
        self._writer.commit()
        self._index.reload()

    def search(self, wanted: Wanted, offset: int, most: int) -> tuple[list[str], int]:
        """The models of a page, and how many there are in all."""
        searcher = self._index.searcher()
        query = self._query(wanted)
        orders: dict[int, tuple[str, Order]] = {
            marketplace_pb2.SORT_ORDER_NEWEST: ("published", Order.Desc),
            marketplace_pb2.SORT_ORDER_POPULARITY: ("popularity", Order.Desc),
            marketplace_pb2.SORT_ORDER_PRICE: ("price", Order.Asc),
        }
        order = orders.get(wanted.sort)
        if order is None and not wanted.words.strip():
            order = orders[marketplace_pb2.SORT_ORDER_NEWEST]
        if order is None:
            result = searcher.search(query, limit=most, offset=offset, count=True)
        else:
            result = searcher.search(
                query, limit=most, offset=offset, count=True, order_by_field=order[0], order=order[1]
            )
        return [searcher.doc(address)["model"][0] for _, address in result.hits], int(getattr(result, "count", 0) or 0)

    def facets(self, wanted: Wanted) -> dict[str, dict[str, int]]:
        """How many hits have each value, for each facet; the most frequent hundred values."""
        aggregations = {name: {"terms": {"field": name, "size": 100}} for name in FACETS}
        answer = self._index.searcher().aggregate(self._query(wanted), aggregations)
        return {
            name: {str(b["key"]): int(b["doc_count"]) for b in answer.get(name, {}).get("buckets", [])}
            for name in FACETS
        }

    def _query(self, wanted: Wanted) -> Query:
        parts: list[tuple[Occur, Query]] = []
        words = self._analyzer.analyze(wanted.words)[:16]  # as the documents' own words were made
        for i, word in enumerate(words):
            parts.append((Occur.Must, self._word(word, last=i == len(words) - 1)))
        for name, values in wanted.filters.items():
            parts += [(Occur.Must, Query.term_query(self._schema, name, value)) for value in values]
        return Query.boolean_query(parts) if parts else Query.all_query()

    def _word(self, word: str, *, last: bool) -> Query:
        """A word in any field: exactly, with one letter wrong, or, if it is still being typed, as a beginning."""
        ways: list[tuple[Occur, Query]] = []
        for name, boost in _BOOSTS.items():
            exact = Query.term_query(self._schema, name, word)
            ways.append((Occur.Should, Query.boost_query(exact, boost)))
            if len(word) >= 4:
                distance = 2 if len(word) >= 8 else 1
                fuzzy = Query.fuzzy_term_query(self._schema, name, word, distance=distance, transposition_cost_one=True)
                ways.append((Occur.Should, Query.boost_query(fuzzy, boost * 0.3)))
            if last and len(word) >= 2:
                begins = Query.fuzzy_term_query(self._schema, name, word, distance=0, prefix=True)
                ways.append((Occur.Should, Query.boost_query(begins, boost * 0.5)))
        return Query.boolean_query(ways)


def _schema() -> tantivy.Schema:
    builder = SchemaBuilder()
    builder.add_text_field("model", stored=True, tokenizer_name="raw", index_option="basic")
    for name in _BOOSTS:
        builder.add_text_field(name, tokenizer_name="words")
    for name in (*FACETS, "publisher"):
        builder.add_text_field(name, tokenizer_name="raw", index_option="basic", fast=True)
    for name in ("published", "popularity", "price"):
        builder.add_integer_field(name, indexed=False, fast=True)
    return builder.build()


def _document(listing: marketplace_pb2.Listing) -> Document:
    model, version = listing.model, listing.version
    publisher, _, name = model.model.partition("/")
    document = Document()
    for field_name, text in (
        ("model", model.model), ("name", name), ("title", model.display_name), ("tags_text", " ".join(model.tags)),
        ("task_text", model.task), ("summary", model.summary), ("description", model.description),
        ("category", model.category), ("task", model.task), ("framework", version.framework),
        ("license", model.license), ("publisher", publisher),
    ):  # fmt: skip
        document.add_text(field_name, text)
    for tag in model.tags:
        document.add_text("tags", tag)
    document.add_integer("published", model.published_at.ToMilliseconds())
    document.add_integer("popularity", listing.total_requests)
    document.add_integer("price", pricing.at_first(pricing.read(listing.price)))
    return document
