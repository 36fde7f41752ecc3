"""The index by itself: found, ranked, paged, and kept in its folder."""

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mercat.billing.v1 import billing_pb2
from mercat.marketplace.v1 import marketplace_pb2 as m
from mercat.registry.v1 import registry_pb2

from services.marketplace.index import Index
from services.marketplace.questions import Wanted


def listing(name: str, *, summary: str = "", calls: int = 0, price: int = 0, at: int = 1) -> m.Listing:
    made = m.Listing(
        model=registry_pb2.Model(model=f"ada/{name}", display_name=name, summary=summary, category="nlp", task="t"),
        version=registry_pb2.Version(framework="onnx"),
        price=billing_pb2.Price(components=[billing_pb2.PriceComponent(meter="requests", nanos_per_million=price)]),
        total_requests=calls,
    )
    made.model.published_at.FromSeconds(at)
    return made


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Index:
    made = Index(tmp_path_factory.mktemp("search") / "index")
    made.put([listing(f"model-{i:03}", summary="counted", calls=i % 7, price=i % 5, at=i) for i in range(100)])
    made.put([listing("whisperer", summary="hears"), listing("other", summary="a whisperer too")])
    return made


def test_a_name_counts_more_than_a_summary(index: Index) -> None:
    assert index.search(Wanted("whisperer"), 0, 10) == (["ada/whisperer", "ada/other"], 2)


@pytest.mark.parametrize("sort", [1, 2, 3, 4])
def test_pages_are_the_whole_in_order(index: Index, sort: int) -> None:
    wanted = Wanted("counted", sort=sort)
    whole, total = index.search(wanted, 0, 1000)
    assert (len(whole), total) == (100, 100)
    assert [name for at in range(0, 100, 7) for name in index.search(wanted, at, 7)[0]] == whole
    assert index.search(wanted, 100, 7)[0] == []
    number = [int(n[-3:]) for n in whole]
    if sort == m.SORT_ORDER_NEWEST:
        assert number == sorted(number, reverse=True)
    if sort == m.SORT_ORDER_POPULARITY:
        assert [n % 7 for n in number] == sorted((n % 7 for n in number), reverse=True)
    if sort == m.SORT_ORDER_PRICE:
        assert [n % 5 for n in number] == sorted(n % 5 for n in number)


@given(st.text(max_size=80))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_text_breaks_a_search(index: Index, text: str) -> None:
    index.search(Wanted(text), 0, 5)
    index.facets(Wanted(text))


def test_a_listing_is_replaced_and_removed(tmp_path: Path) -> None:
    index = Index(tmp_path / "index")
    index.put([listing("a", summary="old")])
    index.put([listing("a", summary="new")])
    assert index.search(Wanted("old"), 0, 5)[1] == 0
    assert index.search(Wanted("new"), 0, 5)[1] == 1
    index.put([], gone=["ada/a"])
    assert index.search(Wanted(), 0, 5) == ([], 0)


def test_it_is_there_after_a_restart_unless_it_is_of_another_kind(tmp_path: Path) -> None:
    folder = tmp_path / "index"
    first = Index(folder)
    first.put([listing("a")])
    first.complete()
    del first
    again = Index(folder)
    assert not again.is_new
    assert again.search(Wanted("a"), 0, 5)[1] == 1
    del again
    (folder / "mercat.json").write_text('{"version": -1}')
    other = Index(folder)
    assert other.is_new
    assert other.search(Wanted(), 0, 5) == ([], 0)
