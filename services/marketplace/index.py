"""The search index: tantivy, in this process, in a folder of the home. It can be lost at any time and built anew.
One thread writes; any number search, each in a state of the index that does not change."""

import json
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path

import tantivy
from mercat.marketplace.v1 import marketplace_pb2
from tantivy import Filter, Query, Searcher, TextAnalyzerBuilder, Tokenizer

from services.marketplace import documents
from services.marketplace.documents import FACETS, VERSION
from services.marketplace.questions import Asker, Wanted


class Snapshot:
    """A state of the index, for as long as it is held."""

    def __init__(self, searcher: Searcher, asker: Asker) -> None:
        self._searcher = searcher
        self._asker = asker

    def search(self, wanted: Wanted, offset: int, most: int) -> tuple[list[str], int]:
        """The models of a page, and how many there are in all."""
        query = self._asker.query(wanted, self._searcher)
        if (order := wanted.order) is None:
            result = self._searcher.search(query, limit=most, offset=offset, count=True)
        else:
            result = self._searcher.search(
                query, limit=most, offset=offset, count=True, order_by_field=order[0], order=order[1]
            )
        return self._names(result), int(getattr(result, "count", 0) or 0)

    def among(self, wanted: Wanted, names: Sequence[str]) -> list[str]:
        """Those of the models that the search has, in the order given."""
        if not names:
            return []
        both = [
            (tantivy.Occur.Must, self._asker.query(wanted, self._searcher)),
            (tantivy.Occur.Must, self._asker.models(names)),
        ]
        held = set(self._names(self._searcher.search(Query.boolean_query(both), limit=len(names), count=False)))
        return [name for name in names if name in held]

    def alike(self, listing: marketplace_pb2.Listing, most: int) -> list[str]:
        """Models that share task, tags or words with one, without it."""
        model = listing.model
        query = self._asker.alike(model.task, model.tags, f"{model.display_name} {model.summary}")
        names = self._names(self._searcher.search(query, limit=most + 1, count=False))
        return [name for name in names if name != model.model][:most]

    def facets(self, wanted: Wanted, also: Sequence[str] = ()) -> dict[str, dict[str, int]]:
        """How many hits have each value, for each facet; the most frequent hundred values. `also`: models that count
        without the words."""
        aggregations = {name: {"terms": {"field": name, "size": 100}} for name in FACETS}
        answer = self._searcher.aggregate(self._asker.query(wanted, self._searcher, also), aggregations)
        return {
            name.removesuffix("_band"): {
                str(b["key"]): int(b["doc_count"]) for b in answer.get(name, {}).get("buckets", [])
            }
            for name in FACETS
        }

    def _names(self, result: tantivy.SearchResult) -> list[str]:
        return [self._searcher.doc(address)["model"][0] for _, address in result.hits]


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
        schema = documents.schema()
        self._index = tantivy.Index(schema, str(folder), reuse=True)
        analyzer = (
            TextAnalyzerBuilder(Tokenizer.simple()).filter(Filter.lowercase()).filter(Filter.ascii_fold()).build()
        )
        self._index.register_tokenizer("words", analyzer)
        self.asker = Asker(schema, analyzer)
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
            if not clear:
                self._writer.delete_documents_by_term("model", listing.model.model)
            self._writer.add_document(documents.document(listing))
        self._writer.commit()
        self._index.reload()

    def snapshot(self) -> Snapshot:
        """The index as it is now."""
        return Snapshot(self._index.searcher(), self.asker)

    def search(self, wanted: Wanted, offset: int, most: int) -> tuple[list[str], int]:
        """As `Snapshot.search`, of now."""
        return self.snapshot().search(wanted, offset, most)

    def facets(self, wanted: Wanted) -> dict[str, dict[str, int]]:
        """As `Snapshot.facets`, of now."""
        return self.snapshot().facets(wanted)
