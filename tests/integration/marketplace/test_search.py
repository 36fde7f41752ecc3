"""What is published is found, at once and however it is typed; what is not, is not."""

import secrets
import time
from collections.abc import Callable
from typing import Any

import grpc
import pytest
from mercat.billing.v1 import billing_pb2
from mercat.inference.v1 import inference_pb2
from mercat.marketplace.v1 import marketplace_pb2 as m
from mercat.registry.v1 import registry_pb2 as r
from mercat.usage.v1 import usage_pb2

from services.common.errors import from_rpc_error
from tests import graphs
from tests.platform import Account, Platform

MARK = "".join(chr(ord("a") + b % 26) for b in secrets.token_bytes(12))  # a word of this run's models only


class Shop:
    """A publisher with a few models that differ in all that can be searched for."""

    def __init__(self, platform: Platform) -> None:
        self.platform = platform
        self.owner = platform.publisher()
        self.anyone = platform.anonymous
        self.prefix = f"{self.owner.profile.username}/"
        digest = platform.upload(self.owner, graphs.tiny())
        self.make("sentence-embedder", digest, "nlp", "text-embedding", ["multilingual", MARK], 30)
        self.make("photo_tagger", digest, "vision", "image-classification", ["fast", MARK], 10, license="Apache-2.0")
        self.make("grosse-stimme", digest, "audio", "speech-to-text", [MARK], 20, title="Größe Café")
        self.make("draft-only", digest, "nlp", "text-embedding", [MARK], publish=False)

    def make(
        self, name: str, digest: str, category: str, task: str, tags: list[str], price: int = 0, *, title: str = "",
        publish: bool = True, license: str = "MIT",  # noqa: A002
    ) -> None:  # fmt: skip
        self.owner.registry.CreateModel(
            r.CreateModelRequest(
                name=name, display_name=title, summary=f"Turns things into others, {MARK}.", category=category,
                task=task, tags=tags, license=license,
            )
        )  # fmt: skip
        model = self.prefix + name
        self.platform.validated(self.owner, model, digest)
        self.owner.registry.SubmitVersion(r.SubmitVersionRequest(model=model, version="1.0.0"))
        if not publish:
            return
        self.platform.admin().registry.ApproveVersion(r.ApproveVersionRequest(model=model, version="1.0.0"))
        self.price(name, price)
        self.owner.registry.PublishVersion(r.PublishVersionRequest(model=model, version="1.0.0"))

    def price(self, name: str, nanos: int) -> None:
        components = [billing_pb2.PriceComponent(meter="requests", nanos_per_million=nanos)]
        request = billing_pb2.SetModelPriceRequest(model=self.prefix + name, components=components)
        self.owner.billing.SetModelPrice(request)

    def search(self, query: str = "", **fields: Any) -> list[str]:
        """Names found, of this shop."""
        found = self.anyone.marketplace.SearchModels(m.SearchModelsRequest(query=query, page_size=100, **fields)).hits
        return [h.model.removeprefix(self.prefix) for h in found if h.model.startswith(self.prefix)]

    def until(self, condition: Callable[[], bool], seconds: float = 2) -> float:
        started = time.monotonic()
        while not condition():
            assert time.monotonic() - started < seconds
            time.sleep(0.02)
        return time.monotonic() - started


ALL = {"sentence-embedder", "photo_tagger", "grosse-stimme"}


@pytest.fixture(scope="module")
def shop(platform: Platform) -> Shop:
    made = Shop(platform)
    made.until(lambda: set(made.search(MARK)) == ALL)
    return made


def test_a_new_publication_is_found_within_two_seconds(platform: Platform) -> None:
    model = platform.publish(platform.publisher(), graphs.tiny(), f"fresh-{secrets.token_hex(4)}")
    published = time.monotonic()

    def found() -> bool:
        request = m.SearchModelsRequest(query=model.partition("/")[2])
        return model in [h.model for h in platform.anonymous.marketplace.SearchModels(request).hits]

    while not found():
        assert time.monotonic() - published < 2
        time.sleep(0.02)


@pytest.mark.parametrize(
    ("query", "name"),
    [
        ("sentence embedder", "sentence-embedder"), ("SENTENCE", "sentence-embedder"),
        ("sentense embedder", "sentence-embedder"), ("setnence", "sentence-embedder"),
        ("sentence embed", "sentence-embedder"), ("sent", "sentence-embedder"),
        ("embedder multilingual", "sentence-embedder"), ("sentence-embedder", "sentence-embedder"),
        ("photo_tagger", "photo_tagger"), ("photo tagger", "photo_tagger"), ("phto_tagger", "photo_tagger"),
        ("Größe", "grosse-stimme"), ("GROSSE cafe", "grosse-stimme"), ("speech", "grosse-stimme"),
    ],
)  # fmt: skip
def test_found_as_people_type(shop: Shop, query: str, name: str) -> None:
    assert shop.search(f"{MARK} {query}") == [name]


@pytest.mark.parametrize("query", ["draft", "xylophone vuvuzela balalaika", "' 1=1 -- xylophone"])
def test_not_found(shop: Shop, query: str) -> None:
    assert shop.search(f"{query} xylophone") == []


def test_what_has_most_of_the_words_is_found_for_want_of_better(shop: Shop) -> None:
    found = shop.anyone.marketplace.SearchModels(m.SearchModelsRequest(query=f"xylophone tagger {MARK}"))
    assert found.relaxed
    assert found.hits[0].model == shop.prefix + "photo_tagger"
    found = shop.anyone.marketplace.SearchModels(m.SearchModelsRequest(query=f"tagger {MARK}"))
    assert not found.relaxed


def test_common_words_need_not_be_there(shop: Shop) -> None:
    assert shop.search(f"what is a tagger for the {MARK}") == ["photo_tagger"]


@pytest.mark.parametrize("query", ["", '( " :*', "-+~^", "\u202e"])
def test_signs_are_not_a_language(shop: Shop, query: str) -> None:
    assert set(shop.search(f"{query} {MARK}")) == ALL


@pytest.mark.parametrize(
    ("filters", "names"),
    [
        ({"category": "vision"}, {"photo_tagger"}), ({"task": "text-embedding"}, {"sentence-embedder"}),
        ({"tags": ["fast"]}, {"photo_tagger"}), ({"tags": [MARK]}, ALL), ({"tags": [MARK, "fast"]}, {"photo_tagger"}),
        ({"tags": ["fast", "multilingual"]}, set()), ({"license": "Apache-2.0"}, {"photo_tagger"}),
        ({"modality": "image"}, {"photo_tagger"}), ({"modality": "text"}, {"sentence-embedder"}),
        ({"max_price_nanos": 20}, {"photo_tagger", "grosse-stimme"}), ({"min_price_nanos": 30}, {"sentence-embedder"}),
        ({"min_price_nanos": 11, "max_price_nanos": 29}, {"grosse-stimme"}), ({"min_rating": 1}, set()),
        ({"max_latency_us": 10**9}, set()), ({"framework": "onnx"}, ALL), ({"framework": "gguf"}, set()),
        ({"category": "nlp", "task": "speech-to-text"}, set()),
    ],
)  # fmt: skip
def test_filters(shop: Shop, filters: dict[str, Any], names: set[str]) -> None:
    assert set(shop.search(MARK, **filters)) == names
    assert set(shop.search("", publisher=shop.owner.profile.username, **filters)) == names


def test_facets_count_all_that_fit(shop: Shop) -> None:
    found = shop.anyone.marketplace.SearchModels(m.SearchModelsRequest(query=MARK, page_size=1))
    facets = {f.field: dict(f.counts) for f in found.facets}
    assert found.total == 3
    assert facets["category"] == {"nlp": 1, "vision": 1, "audio": 1}
    assert facets["tags"] == {MARK: 3, "multilingual": 1, "fast": 1}
    assert facets["license"] == {"MIT": 2, "Apache-2.0": 1}
    assert facets["framework"] == {"onnx": 3}
    assert facets["modality"] == {"text": 1, "image": 1, "audio": 1}
    assert facets["price"] == {"up_to_1": 3}


def test_sorts(shop: Shop) -> None:
    newest = shop.search(MARK, sort=m.SORT_ORDER_NEWEST)
    assert newest == ["grosse-stimme", "photo_tagger", "sentence-embedder"]
    cheapest = shop.search(MARK, sort=m.SORT_ORDER_PRICE)
    assert cheapest == ["photo_tagger", "grosse-stimme", "sentence-embedder"]
    assert set(shop.search(MARK, sort=m.SORT_ORDER_POPULARITY)) == ALL
    assert set(shop.search(MARK, sort=m.SORT_ORDER_RELEVANCE)) == ALL


def test_finds_are_shown_where_they_are(shop: Shop) -> None:
    request = m.SearchModelsRequest(query=f"thngs {MARK}", publisher=shop.owner.profile.username)
    hit = shop.anyone.marketplace.SearchModels(request).hits[0]
    shown = {h.field: [h.text[r.start : r.end] for r in h.ranges] for h in hit.highlights}
    assert shown["summary"] == ["things", MARK]


def test_pages_stay_as_they_were_while_models_come_and_go(platform: Platform) -> None:
    owner = platform.publisher()
    made = [platform.publish(owner, graphs.tiny(), f"page-{n}") for n in range(5)]
    shop = platform.anonymous.marketplace
    request = m.SearchModelsRequest(publisher=owner.profile.username, page_size=2, sort=m.SORT_ORDER_NEWEST)
    deadline = time.monotonic() + 20
    while (first := shop.SearchModels(request)).total < 5:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    newer = platform.publish(owner, graphs.tiny(), "page-new")
    owner.registry.DeprecateVersion(r.DeprecateVersionRequest(model=made[1], version="1.0.0"))
    after = m.SearchModelsRequest(publisher=owner.profile.username, page_size=10)
    while sorted(h.model for h in shop.SearchModels(after).hits) != sorted([newer, made[0], *made[2:]]):
        assert time.monotonic() < deadline + 5
        time.sleep(0.05)
    seen, token = [h.model for h in first.hits], first.next_page_token
    while token:
        request.page_token = token
        page = shop.SearchModels(request)
        seen += [h.model for h in page.hits]
        token = page.next_page_token
    assert seen == [made[4], made[3], made[2], made[0]]  # the one that is gone is nowhere, the new one in no later page
    request.query = "another"
    request.page_token = first.next_page_token
    with pytest.raises(grpc.RpcError) as caught:
        shop.SearchModels(request)
    assert [v.field for v in from_rpc_error(caught.value).violations] == ["page_token"]


def test_measured_latency_sorts_and_filters(platform: Platform) -> None:
    owner, caller = platform.publisher(), platform.sign_up()
    called, idle = (platform.publish(owner, graphs.tiny(), name) for name in ("called", "idle"))
    x = inference_pb2.Tensor(name="x", datatype="FP32", shape=[1, 4], raw=bytes(16))
    for _ in range(3):
        caller.inference.Predict(inference_pb2.PredictRequest(model=called, inputs=[x]))

    def found(**fields: Any) -> list[m.SearchHit]:
        request = m.SearchModelsRequest(publisher=owner.profile.username, **fields)
        return list(platform.anonymous.marketplace.SearchModels(request).hits)

    deadline = time.monotonic() + 40
    while [h.model for h in found(max_latency_us=10**7)] != [called]:
        assert time.monotonic() < deadline
        time.sleep(0.2)
    quick, never = found(sort=m.SORT_ORDER_LATENCY)
    assert (quick.model, never.model, never.p50_latency_us) == (called, idle, 0)
    assert 0 < quick.p50_latency_us <= quick.p95_latency_us
    usage = owner.usage.SummarizeUsage(usage_pb2.SummarizeUsageRequest(view=usage_pb2.USAGE_VIEW_PUBLISHER))
    assert quick.total_requests == usage.models[0].calls == 3


@pytest.mark.parametrize("sort", [m.SORT_ORDER_RELEVANCE, m.SORT_ORDER_NEWEST, m.SORT_ORDER_PRICE])
def test_pages_repeat_nothing(shop: Shop, sort: int) -> None:
    seen: list[str] = []
    token = ""
    while True:
        request = m.SearchModelsRequest(query=MARK, page_size=1, page_token=token, sort=sort)
        page = shop.anyone.marketplace.SearchModels(request)
        seen += [h.model.removeprefix(shop.prefix) for h in page.hits]
        token = page.next_page_token
        if not token:
            break
    assert len(seen) == len(set(seen))
    assert set(seen) == ALL


def test_a_page_token_nobody_made_is_refused(shop: Shop) -> None:
    for token in ("x", "WyJhIl0", "Wy0xXQ"):
        with pytest.raises(grpc.RpcError) as caught:
            shop.anyone.marketplace.SearchModels(m.SearchModelsRequest(page_token=token))
        assert [v.field for v in from_rpc_error(caught.value).violations] == ["page_token"]


def test_a_changed_price_shows(shop: Shop) -> None:
    def listed() -> m.Listing:
        request = m.GetListingRequest(model=shop.prefix + "photo_tagger")
        return shop.anyone.marketplace.GetListing(request).listing  # type: ignore[no-any-return]

    before = listed().price.components[0].nanos_per_million
    shop.price("photo_tagger", 40)
    shop.until(lambda: listed().price.components[0].nanos_per_million == 40)
    shop.until(lambda: shop.search(MARK, sort=m.SORT_ORDER_PRICE)[-1] == "photo_tagger")
    shop.price("photo_tagger", before)
    shop.until(lambda: shop.search(MARK, sort=m.SORT_ORDER_PRICE)[0] == "photo_tagger")


def test_what_is_not_published_has_no_listing(shop: Shop) -> None:
    texts = []
    for name in ("draft-only", "nothing"):
        with pytest.raises(grpc.RpcError) as caught:
            shop.owner.marketplace.GetListing(m.GetListingRequest(model=shop.prefix + name))
        error = from_rpc_error(caught.value)
        assert (error.code, error.reason) == (grpc.StatusCode.NOT_FOUND, "MODEL_NOT_FOUND")
        texts.append(error.message.replace(name, "…"))
    assert texts[0] == texts[1]


def test_a_rebuilt_index_answers_the_same(platform: Platform, shop: Shop) -> None:
    queries: list[dict[str, Any]] = [
        {"query": MARK}, {"query": f"{MARK} sentense"}, {"query": MARK, "sort": m.SORT_ORDER_PRICE},
        {"query": MARK, "tags": ["fast"]},
    ]  # fmt: skip

    def answers() -> list[Any]:
        found = [shop.anyone.marketplace.SearchModels(m.SearchModelsRequest(**q)) for q in queries]
        return [(sorted(h.model for h in f.hits), f.total, sorted(str(x) for x in f.facets)) for f in found]

    before = answers()
    rebuilt = platform.admin().marketplace.RebuildIndex(m.RebuildIndexRequest(), timeout=60)
    assert rebuilt.models >= 3
    assert answers() == before
    with pytest.raises(grpc.RpcError) as caught:
        shop.owner.marketplace.RebuildIndex(m.RebuildIndexRequest())
    assert caught.value.code() is grpc.StatusCode.PERMISSION_DENIED


def test_what_is_deprecated_is_no_longer_found(platform: Platform) -> None:
    owner: Account = platform.publisher()
    model = platform.publish(owner, graphs.tiny(), f"fading-{secrets.token_hex(4)}")

    def found() -> bool:
        request = m.SearchModelsRequest(publisher=owner.profile.username)
        return [h.model for h in platform.anonymous.marketplace.SearchModels(request).hits] == [model]

    for wanted in (True, False):
        end = time.monotonic() + 20
        while found() is not wanted:
            assert time.monotonic() < end
            time.sleep(0.02)
        if wanted:
            owner.registry.DeprecateVersion(r.DeprecateVersionRequest(model=model, version="1.0.0"))
