"""Found by what it means, by a model that Mercat itself serves; and by its words alone while there is none."""

import secrets
import time

import grpc
import pytest
from mercat.marketplace.v1 import marketplace_pb2 as m
from mercat.registry.v1 import registry_pb2 as r

from tests import graphs
from tests.expect import until
from tests.platform import Account, Platform


def search(person: Account, query: str, **fields: object) -> m.SearchModelsResponse:
    return person.marketplace.SearchModels(m.SearchModelsRequest(query=query, **fields))  # type: ignore[no-any-return]


def test_without_an_encoder_the_reply_says_so(platform: Platform) -> None:
    found = search(platform.anonymous, "turns sentences into numbers")
    assert found.mode == m.SEARCH_MODE_LEXICAL
    assert "mercat/minilm" in found.semantic_absent
    assert not search(platform.anonymous, "x", mode=m.SEARCH_MODE_LEXICAL).semantic_absent


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Platform:
    with Platform(tmp_path_factory.mktemp("meaning") / "home", demo=True) as running:
        yield running


@pytest.fixture(scope="module")
def described(demo: Platform) -> str:
    """A model that is described with none of the words that are searched for, once it is embedded."""
    owner = demo.publisher()
    name = f"mood-{secrets.token_hex(4)}"
    model = f"{owner.profile.organisation}/{name}"
    create = r.CreateModelRequest(
        name=name, summary="Says whether a review of a film is positive or negative.", category="nlp",
        task="sentiment-analysis", tags=["opinion"], license="MIT",
    )  # fmt: skip
    owner.registry.CreateModel(create)
    demo.validated(owner, model, demo.upload(owner, graphs.tiny()))
    owner.registry.SubmitVersion(r.SubmitVersionRequest(model=model, version="1.0.0"))
    demo.admin().registry.ApproveVersion(r.ApproveVersionRequest(model=model, version="1.0.0"))
    owner.registry.PublishVersion(r.PublishVersionRequest(model=model, version="1.0.0"))
    deadline = time.monotonic() + 30
    while demo.value(f"SELECT count(*) FROM marketplace.embeddings WHERE model = '{model}'") == 0:
        assert time.monotonic() < deadline, demo.log()
        time.sleep(0.1)
    return model


QUERY = "is a customer satisfied with a movie"


def test_found_by_meaning(demo: Platform, described: str) -> None:
    by_words = search(demo.anonymous, QUERY, mode=m.SEARCH_MODE_LEXICAL)
    assert described not in [h.model for h in by_words.hits]
    for mode in (m.SEARCH_MODE_HYBRID, m.SEARCH_MODE_SEMANTIC):
        found = search(demo.anonymous, QUERY, mode=mode)
        assert (found.mode, found.semantic_absent) == (mode, "")
        assert found.hits[0].model == described
        assert found.total == len(found.hits)
    assert search(demo.anonymous, QUERY, task="text-embedding").hits != found.hits
    assert described not in [h.model for h in search(demo.anonymous, QUERY, category="vision").hits]


def test_words_and_meaning_are_merged(demo: Platform, described: str) -> None:
    found = search(demo.anonymous, "text recogniser")
    assert found.hits[0].model == "mercat/pp-ocr-rec"
    assert "mercat/pp-ocr-det" in [h.model for h in found.hits]
    assert {f.field: dict(f.counts) for f in found.facets}["modality"]["image"] >= 2


def test_similar_models(demo: Platform, described: str) -> None:
    request = m.ListSimilarModelsRequest(model="mercat/pp-ocr-det")
    similar = demo.anonymous.marketplace.ListSimilarModels(request)
    assert similar.mode == m.SEARCH_MODE_SEMANTIC
    assert similar.hits[0].model == "mercat/pp-ocr-rec"
    assert "mercat/pp-ocr-det" not in [h.model for h in similar.hits]


def test_nobody_pays_for_it(demo: Platform, described: str) -> None:
    """Calls of the platform's own are nobody's usage."""
    search(demo.anonymous, f"{QUERY} {secrets.token_hex(4)}")
    time.sleep(1)
    counted = demo.value("SELECT count(*) FROM usage.usage_records WHERE model = 'mercat/minilm'")
    assert counted == 0
    assert demo.admin().check_ledger().clean


def test_what_is_gone_is_not_meant(demo: Platform) -> None:
    owner = demo.publisher()
    model = demo.publish(owner, graphs.tiny(), f"gone-{secrets.token_hex(4)}")

    def similar() -> str:
        try:
            return str(demo.anonymous.marketplace.ListSimilarModels(m.ListSimilarModelsRequest(model=model)))
        except grpc.RpcError as e:
            return str(e.code().name)

    until(lambda: similar() != "NOT_FOUND")
    owner.registry.DeprecateVersion(r.DeprecateVersionRequest(model=model, version="1.0.0"))
    until(lambda: similar() == "NOT_FOUND")
    assert demo.value(f"SELECT count(*) FROM marketplace.listings WHERE model = '{model}'") == 0
    assert demo.value(f"SELECT count(*) FROM marketplace.embeddings WHERE model = '{model}'") == 0
