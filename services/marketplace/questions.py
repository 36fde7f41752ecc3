"""What is searched for, as a query of the index."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from mercat.marketplace.v1 import marketplace_pb2
from tantivy import FieldType, Occur, Order, Query, Schema, Searcher, TextAnalyzer

from services.marketplace.documents import BOOSTS, LOOSE, NEVER_MEASURED
from services.marketplace.highlight import allowed

_RARE = 5  # a word that fewer models have may be a typo
_WORDS = 16  # of a query that count
# Words that a model need not have, unless a query has no other.
_COMMON = """a an and are as at by can do find for from how i in into is it me model models my of on or that the this to
want what which who with"""
Range = tuple[int | None, int | None]


_POPULAR, _TRENDING = -1, -2  # sorts that only boards have
_OFTEN = 20  # calls of 30 days from which a latency is worth comparing
# The sort of a leaderboard, and which models have the figure.
BOARDS: dict[str, tuple[int, Mapping[str, Range]]] = {
    "popular": (_POPULAR, {"recent": (1, None)}),
    "trending": (_TRENDING, {"trend": (1, None)}),
    "rated": (marketplace_pb2.SORT_ORDER_RATING, {"rating_micros": (1, None)}),
    "fastest": (marketplace_pb2.SORT_ORDER_LATENCY, {"recent": (_OFTEN, None), "latency": (None, NEVER_MEASURED)}),
    "cheapest": (marketplace_pb2.SORT_ORDER_PRICE, {}),
}


@dataclass(frozen=True)
class Wanted:
    """A search. Every filter given must hold; `ranges` are inclusive, by the name of a number."""

    words: str = ""
    filters: Mapping[str, Sequence[str]] = field(default_factory=dict)
    sort: int = marketplace_pb2.SORT_ORDER_RELEVANCE
    ranges: Mapping[str, Range] = field(default_factory=dict)
    relaxed: bool = False  # most of the words will do

    @property
    def order(self) -> tuple[str, Order] | None:
        """The field that sorts; None: by relevance."""
        orders: dict[int, tuple[str, Order]] = {
            marketplace_pb2.SORT_ORDER_NEWEST: ("published", Order.Desc),
            marketplace_pb2.SORT_ORDER_POPULARITY: ("popularity", Order.Desc),
            marketplace_pb2.SORT_ORDER_PRICE: ("price", Order.Asc),
            marketplace_pb2.SORT_ORDER_RATING: ("rating_micros", Order.Desc),
            marketplace_pb2.SORT_ORDER_LATENCY: ("latency", Order.Asc),
            _POPULAR: ("recent", Order.Desc),
            _TRENDING: ("trend", Order.Desc),
        }
        return orders.get(self.sort) or (None if self.words.strip() else orders[marketplace_pb2.SORT_ORDER_NEWEST])

    @property
    def unworded(self) -> "Wanted":
        """The filters alone."""
        return replace(self, words="")


class Asker:
    """Makes queries for one schema."""

    def __init__(self, schema: Schema, analyzer: TextAnalyzer) -> None:
        self._schema = schema
        self._analyzer = analyzer

    def words(self, text: str) -> list[str]:
        """As the documents' own words were made."""
        return self._analyzer.analyze(text)[:_WORDS]

    def query(self, wanted: Wanted, searcher: Searcher, also: Iterable[str] = ()) -> Query:
        """`also`: models that need not have the words."""
        parts: list[tuple[Occur, Query]] = []
        words = self.words(wanted.words)
        needed = set(words).difference(_COMMON.split()) or set(words)
        asked = []
        for i, word in enumerate(words):
            if wanted.relaxed and word not in needed:  # what is common is not most of a query
                continue
            occur = Occur.Must if word in needed and not wanted.relaxed else Occur.Should
            asked.append((occur, self._word(word, searcher, last=i == len(words) - 1)))
        least = -(-len(needed) // 2) if wanted.relaxed else None
        if asked:
            found = Query.boolean_query(asked, minimum_number_should_match=least)
            if others := list(also):
                found = Query.boolean_query([(Occur.Should, found), (Occur.Should, self.models(others))])
            parts.append((Occur.Must, found))
        for name, values in wanted.filters.items():
            parts += [(Occur.Must, _silent(Query.term_query(self._schema, name, value))) for value in values]
        for name, (least, most) in wanted.ranges.items():
            between = Query.range_query(self._schema, name, FieldType.Integer, least, _capped(name, most))
            parts.append((Occur.Must, _silent(between)))
        return Query.boolean_query(parts) if parts else Query.all_query()

    def models(self, names: Sequence[str]) -> Query:
        """These models and no other."""
        return _silent(Query.term_set_query(self._schema, "model", list(names)))

    def alike(self, task: str, tags: Sequence[str], words: str) -> Query:
        """Models that share some of these."""
        ways = [Query.boost_query(Query.term_query(self._schema, "task", task), 3.0)]
        ways += [Query.boost_query(Query.term_query(self._schema, "tags", tag), 2.0) for tag in tags]
        ways += [Query.term_query(self._schema, "summary", word) for word in self.words(words)]
        return Query.boolean_query([(Occur.Should, way) for way in ways])

    def _word(self, word: str, searcher: Searcher, *, last: bool) -> Query:
        """A word in any field: exactly, or, where hardly a model has it, with letters wrong; the last one also as a
        beginning, as it may be still being typed."""
        ways: list[tuple[Occur, Query]] = []
        known = 0
        for name, boost in BOOSTS.items():
            known = max(known, searcher.doc_freq(name, word))
            ways.append((Occur.Should, Query.boost_query(Query.term_query(self._schema, name, word), boost)))
        for name, boost in LOOSE.items():
            if known < _RARE and (distance := allowed(word)):
                fuzzy = Query.fuzzy_term_query(self._schema, name, word, distance=distance, transposition_cost_one=True)
                ways.append((Occur.Should, Query.boost_query(fuzzy, boost)))
            if last and len(word) >= 2:
                begins = Query.fuzzy_term_query(self._schema, name, word, distance=0, prefix=True)
                ways.append((Occur.Should, Query.boost_query(begins, boost)))
        return Query.boolean_query(ways)


def _silent(query: Query) -> Query:
    """Decides, and does not rank."""
    return Query.const_score_query(query, 0.0)


def _capped(name: str, most: int | None) -> int | None:
    """What was never measured is not quick."""
    return min(most, NEVER_MEASURED - 1) if name == "latency" and most is not None else most
