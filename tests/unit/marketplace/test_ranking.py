"""What ranks, merges, pages and highlights, by itself."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mercat.marketplace.v1 import marketplace_pb2 as m

from services.common.latencies import bucket, quantile
from services.marketplace.cursors import Cursors, hybrid, lexical, semantic
from services.marketplace.highlight import fold, highlights, matcher, near
from services.marketplace.index import Index
from services.marketplace.questions import Wanted
from services.marketplace.ranking import fuse
from services.marketplace.rating import weighted
from services.marketplace.tasks import CATEGORIES, TASKS, modality
from tests.unit.marketplace.test_index import listing


def test_what_both_lists_have_comes_first() -> None:
    assert fuse(["a", "b", "c"], ["d", "c"]) == ["c", "a", "d", "b"]
    assert fuse([], ["x"]) == ["x"]


@given(st.lists(st.text("ab", max_size=3), unique=True), st.lists(st.text("bc", max_size=3), unique=True))
def test_merging_keeps_each_once(one: list[str], other: list[str]) -> None:
    assert sorted(fuse(one, other)) == sorted({*one, *other})


@given(st.integers(1, 5), st.integers(1, 1000))
def test_few_reviews_say_little(stars: int, count: int) -> None:
    few, many = weighted(stars, 1), weighted(stars * count, count)
    assert min(3.5, stars) <= min(few, many)
    assert max(few, many) <= max(3.5, stars)
    assert abs(many - stars) <= abs(few - stars)
    assert weighted(0, 0) == 0


@given(st.lists(st.integers(1, 10**8), min_size=1), st.sampled_from([0.5, 0.95, 0.99]))
def test_quantiles_are_off_by_a_twentieth(latencies: list[int], share: float) -> None:
    counts: dict[int, int] = {}
    for latency in latencies:
        counts[bucket(latency)] = counts.get(bucket(latency), 0) + 1
    rank = max(1, -(-len(latencies) * int(share * 100) // 100))
    exact = sorted(latencies)[rank - 1]
    assert abs(quantile(counts, share) - exact) <= 0.051 * exact + 1
    assert quantile({}, share) == 0


@pytest.mark.parametrize(
    ("word", "other", "same"),
    [
        ("cat", "cat", True), ("cat", "cut", False), ("word", "wrod", True), ("word", "wards", False),
        ("sentiment", "sentimnt", True), ("classification", "clasificatoin", True), ("sentiment", "settlement", False),
    ],
)  # fmt: skip
def test_words_are_near_as_the_index_has_it(word: str, other: str, same: bool) -> None:
    assert near(word, other) is same


def test_only_words_are_marked() -> None:
    matches = matcher([fold("GROSSE"), "clas"])
    text = "<b>Größe</b> and classes, " + "far away " * 100
    (found,) = highlights([("summary", text), ("description", "none")], matches)
    assert found.field == "summary"
    assert [found.text[r.start : r.end] for r in found.ranges] == ["Größe", "classes"]
    assert len(found.text) <= 160
    assert text.startswith(found.text)


@given(st.text(max_size=400), st.lists(st.text("abcdefghij", min_size=1, max_size=9), min_size=1, max_size=3))
def test_ranges_are_inside_of_the_text(text: str, words: list[str]) -> None:
    for found in highlights([("summary", text)], matcher(words)):
        assert found.text in text
        for span in found.ranges:
            assert 0 <= span.start < span.end <= len(found.text)


def test_tasks_are_of_categories() -> None:
    assert {t.category for t in TASKS.values()} == set(CATEGORIES)
    assert modality("vision", "never-heard-of") == "image"
    assert modality("other", "never-heard-of") == ""


@pytest.fixture
def index(tmp_path: Path) -> Index:
    made = Index(tmp_path / "index")
    made.put([listing(f"model-{i:03}", summary="counted", at=i) for i in range(500)])
    return made


def test_hybrid_pages_are_each_once(index: Index) -> None:
    nearest = ["ada/model-450", "ada/gone", "ada/model-003"]
    search = hybrid(index.snapshot(), Wanted("counted"), nearest)
    assert search.total == 500
    seen = [name for at in range(0, search.places, 50) for name in search.page(at, 50)]
    assert seen[0] in ("ada/model-450", "ada/model-003")
    assert len(seen) == len(set(seen)) == 500
    assert semantic(index.snapshot(), Wanted("nothing"), nearest).page(0, 10) == ["ada/model-450", "ada/model-003"]


def test_facets_count_what_is_meant_too(index: Index) -> None:
    index.put([listing("meant", summary="else")])
    search = hybrid(index.snapshot(), Wanted("counted"), ["ada/meant"])
    assert search.total == 501
    assert search.facets()["category"] == {"nlp": 501}


def test_a_held_search_does_not_see_what_comes(index: Index) -> None:
    search = lexical(index.snapshot(), Wanted("counted", sort=m.SORT_ORDER_NEWEST))
    before = search.page(10, 5)
    index.put([listing("newest", summary="counted", at=1000)], gone=[before[1]])
    assert search.page(10, 5) == before


def test_searches_are_held_for_a_while(index: Index) -> None:
    now = [0.0]
    cursors = Cursors(lambda: now[0])
    search = lexical(index.snapshot(), Wanted("counted"))
    held = cursors.hold(search, ("counted",))
    now[0] = 599
    assert cursors.get(held, ("counted",)) is search
    with pytest.raises(ValueError, match="another"):
        cursors.get(held, ("other",))
    now[0] = 1200
    assert cursors.get(held, ("counted",)) is None


def test_common_words_are_not_most_of_a_query(index: Index) -> None:
    index.put([listing("likeable", summary="what a model is to me")])
    assert lexical(index.snapshot(), Wanted("what is a xylophone to me")).total == 0
    search = lexical(index.snapshot(), Wanted("xylophone likeable"))
    assert (search.wanted.relaxed, search.page(0, 5)) == (True, ["ada/likeable"])
