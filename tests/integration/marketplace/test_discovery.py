"""Boards, comparison and recommendations say what was measured; nothing that is not published is in any of them."""

from collections.abc import Callable, Iterator

import grpc
import pytest
from mercat.billing.v1 import billing_pb2
from mercat.inference.v1 import inference_pb2
from mercat.marketplace.v1 import collections_pb2 as c
from mercat.marketplace.v1 import discovery_pb2 as d
from mercat.marketplace.v1 import marketplace_pb2 as m
from mercat.registry.v1 import registry_pb2 as r

from services.common.errors import from_rpc_error
from tests import graphs
from tests.expect import fails, until
from tests.platform import USD, Account, Platform


@pytest.fixture(scope="module")
def quick(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    """A platform that looks at what is called together all the time."""
    env = {"MERCAT_RECOMMENDATIONS_EVERY": "0.5"}
    with Platform(tmp_path_factory.mktemp("discovery") / "home", env=env) as running:
        yield running


def refused(call: Callable[..., object], *args: object) -> str:
    with pytest.raises(grpc.RpcError) as caught:
        call(*args)
    return from_rpc_error(caught.value).reason


def predict(person: Account, model: str, times: int = 1) -> None:
    x = inference_pb2.Tensor(name="x", datatype="FP32", shape=[1, 4], raw=bytes(16))
    for _ in range(times):
        person.inference.Predict(inference_pb2.PredictRequest(model=model, inputs=[x]))


def deprecate(owner: Account, model: str) -> None:
    owner.registry.DeprecateVersion(r.DeprecateVersionRequest(model=model, version="1.0.0"))


def listed(platform: Platform, model: str) -> bool:
    try:
        platform.anonymous.marketplace.GetListing(m.GetListingRequest(model=model))
    except grpc.RpcError:
        return False
    return True


def board(platform: Platform, name: str) -> list[str]:
    request = d.GetLeaderboardRequest(board=name, limit=100)
    return [h.model for h in platform.anonymous.discovery.GetLeaderboard(request).hits]


def test_boards_are_of_what_was_measured(quick: Platform) -> None:
    owner, caller = quick.publisher(), quick.sign_up()
    busy, rare, idle = (quick.publish(owner, graphs.tiny(), name) for name in ("busy", "rare", "idle"))
    owner.billing.SetModelPrice(
        billing_pb2.SetModelPriceRequest(
            model=idle, components=[billing_pb2.PriceComponent(meter="requests", nanos_per_million=USD)]
        )
    )
    predict(caller, busy, 25)
    predict(caller, rare, 3)
    until(lambda: set(board(quick, "popular")) == {busy, rare}, 40)
    assert board(quick, "popular") == [busy, rare]
    assert board(quick, "fastest") == [busy]  # three calls are too few to compare
    assert board(quick, "trending") == [busy, rare]
    assert board(quick, "rated") == []
    until(lambda: board(quick, "cheapest")[-1] == idle)
    assert refused(quick.anonymous.discovery.GetLeaderboard, d.GetLeaderboardRequest(board="best")) == "INVALID_FIELDS"
    categories = quick.anonymous.discovery.GetCategories(d.GetCategoriesRequest()).categories
    other = next(x for x in categories if x.category == "other")
    assert (other.models, {t.task: t.models for t in other.tasks}["test"]) == (3, 3)
    deprecate(owner, rare)
    until(lambda: board(quick, "popular") == [busy])


def test_comparison_prices_a_workload(quick: Platform) -> None:
    owner = quick.publisher()
    dear = quick.publish(owner, graphs.tiny(), "dear", price={"requests": 3 * USD})
    cheap = quick.publish(owner, graphs.tiny(), "cheap", price={"rows": USD})
    free = quick.publish(owner, graphs.tiny(), "free")
    until(lambda: all(listed(quick, x) for x in (dear, cheap, free)))
    request = d.CompareModelsRequest(models=[dear, cheap, free], units={"requests": 2_000_000})
    compared = quick.anonymous.discovery.CompareModels(request).models
    assert [x.listing.model.model for x in compared] == [dear, cheap, free]
    assert [x.cost_nanos for x in compared] == [6 * USD, 0, 0]
    assert [x.HasField("cost_nanos") for x in compared] == [True, False, True]
    assert [list(x.free_meters) for x in compared] == [[], ["requests"], ["requests"]]
    assert compared[0].listing.version.signature.inputs[0].name == "x"
    assert compared[0].listing.p50_latency_us == 0  # nobody called it
    compare = quick.anonymous.discovery.CompareModels
    assert refused(compare, d.CompareModelsRequest(models=[dear])) == "INVALID_FIELDS"
    assert refused(compare, d.CompareModelsRequest(models=[dear, "no/model"])) == "MODEL_NOT_FOUND"
    assert refused(compare, d.CompareModelsRequest(models=["a/b"] * 6)) == "INVALID_FIELDS"
    negative = d.CompareModelsRequest(models=[dear, free], units={"rows": -1})
    assert refused(compare, negative) == "INVALID_FIELDS"
    unknown = fails(compare, d.CompareModelsRequest(models=[dear, free], units={"row": 1}))
    assert [v.field for v in unknown.violations] == ["units['row']"]


def recommended(person: Account) -> tuple[bool, dict[str, str]]:
    answer = person.discovery.ListRecommendations(d.ListRecommendationsRequest(page_size=50))
    reason = d.RECOMMENDATION_REASON_CALLED_TOGETHER
    return answer.personal, {x.hit.model: x.because for x in answer.models if x.reason == reason}


def test_recommended_is_what_others_call_too(quick: Platform) -> None:
    owner = quick.publisher()
    first, second, hidden = (quick.publish(owner, graphs.tiny(), name) for name in ("first", "second", "hidden"))
    people = [quick.sign_up() for _ in range(3)]
    for person in people:
        for model in (first, second, hidden):
            predict(person, model)
    newcomer, shy = quick.sign_up(), quick.sign_up()
    assert recommended(newcomer)[0] is False  # nothing is known: what is popular
    predict(newcomer, first)
    until(lambda: recommended(newcomer) == (True, {second: first, hidden: first}))
    related = quick.anonymous.discovery.ListRelatedModels(d.ListRelatedModelsRequest(model=first)).models
    assert {x.hit.model for x in related} >= {second, hidden}
    deprecate(owner, hidden)
    until(lambda: recommended(newcomer)[1] == {second: first})
    assert refused(quick.anonymous.discovery.ListRelatedModels, d.ListRelatedModelsRequest(model=hidden)) == (
        "MODEL_NOT_FOUND"
    )
    predict(shy, first)
    until(lambda: recommended(shy)[0])
    shy.discovery.SetDiscoveryPreferences(d.SetDiscoveryPreferencesRequest(recommendations_off=True))
    assert recommended(shy) == (False, {})
    # Two accounts are too few to tell anybody what goes together.
    people[0].discovery.SetDiscoveryPreferences(d.SetDiscoveryPreferencesRequest(recommendations_off=True))
    until(lambda: recommended(newcomer)[1] == {})


def test_favourites_are_an_accounts_own(quick: Platform) -> None:
    owner, person = quick.publisher(), quick.sign_up()
    models = [quick.publish(owner, graphs.tiny()) for _ in range(3)]
    until(lambda: all(listed(quick, x) for x in models))
    for model in [*models, models[0]]:
        person.collections.AddFavourite(c.AddFavouriteRequest(model=model))

    def favourites(who: Account, token: str = "") -> list[str]:
        answer = who.collections.ListFavourites(c.ListFavouritesRequest(page_size=2, page_token=token))
        more = favourites(who, answer.next_page_token) if answer.next_page_token else []
        return [h.model for h in answer.hits] + more

    assert favourites(person) == models[::-1]
    assert favourites(quick.sign_up()) == []
    assert refused(person.collections.AddFavourite, c.AddFavouriteRequest(model="no/model")) == "MODEL_NOT_FOUND"
    deprecate(owner, models[1])
    until(lambda: favourites(person) == [models[2], models[0]])
    person.collections.RemoveFavourite(c.RemoveFavouriteRequest(model=models[2]))
    assert favourites(person) == [models[0]]


def test_collections_are_seen_by_whom_they_are_for(quick: Platform) -> None:
    owner, person, other, admin = quick.publisher(), quick.sign_up(), quick.sign_up(), quick.admin()
    models = [quick.publish(owner, graphs.tiny()) for _ in range(2)]
    until(lambda: all(listed(quick, x) for x in models))
    own = person.collections.CreateCollection(c.CreateCollectionRequest(title="mine")).collection.collection_id
    for model in models:
        held = person.collections.AddToCollection(c.AddToCollectionRequest(collection_id=own, model=model)).collection
    assert [h.model for h in held.models] == models
    for who in (other, admin, quick.anonymous):
        get = c.GetCollectionRequest(collection_id=own)
        assert refused(who.collections.GetCollection, get) == "COLLECTION_NOT_FOUND"
    add = c.AddToCollectionRequest(collection_id=own, model=models[0])
    for who in (other, admin):
        assert refused(who.collections.AddToCollection, add) == "COLLECTION_NOT_FOUND"
    stale = c.UpdateCollectionRequest(collection_id=own, title="x", etag="1")
    assert refused(person.collections.UpdateCollection, stale) == "ETAG_MISMATCH"
    curate = c.CreateCollectionRequest(title="for all", curated=True)
    assert refused(person.collections.CreateCollection, curate) == "ROLE_MISSING"
    public = admin.collections.CreateCollection(curate).collection.collection_id
    admin.collections.AddToCollection(c.AddToCollectionRequest(collection_id=public, model=models[1]))
    taken = c.RemoveFromCollectionRequest(collection_id=public, model=models[1])
    assert refused(person.collections.RemoveFromCollection, taken) == "COLLECTION_NOT_FOUND"
    listing = quick.anonymous.collections.ListCollections(c.ListCollectionsRequest(curated=True))
    assert [x.collection_id for x in listing.collections] == [public]
    mine = person.collections.ListCollections(c.ListCollectionsRequest()).collections
    assert [x.collection_id for x in mine] == [own]
    assert refused(quick.anonymous.collections.ListCollections, c.ListCollectionsRequest()) == "CREDENTIAL_MISSING"
    deprecate(owner, models[1])
    shown = quick.anonymous.collections.GetCollection
    until(lambda: not shown(c.GetCollectionRequest(collection_id=public)).collection.models)
    person.collections.DeleteCollection(c.DeleteCollectionRequest(collection_id=own))
    assert not person.collections.ListCollections(c.ListCollectionsRequest()).collections


def test_the_feed_has_new_versions_of_whom_one_follows(quick: Platform) -> None:
    owner, stranger, person = quick.publisher(), quick.publisher(), quick.sign_up()
    model = quick.publish(owner, graphs.tiny())
    quick.publish(stranger, graphs.tiny())
    until(lambda: listed(quick, model))
    follow = c.FollowPublisherRequest(publisher=owner.profile.username)
    person.collections.FollowPublisher(follow)
    person.collections.FollowPublisher(follow)
    draft = quick.publisher()
    nobody = c.FollowPublisherRequest(publisher=draft.profile.username)
    assert refused(person.collections.FollowPublisher, nobody) == "PUBLISHER_NOT_FOUND"

    def feed() -> list[str]:
        seen, token = [], ""
        while True:
            answer = person.collections.ListFeed(c.ListFeedRequest(page_size=1, page_token=token))
            seen += [f"{e.hit.model}@{e.version}" for e in answer.entries]
            token = answer.next_page_token
            if not token:
                return seen

    until(lambda: feed() == [f"{model}@1.0.0"])
    quick.publish(owner, graphs.tiny(), model.partition("/")[2], version="1.1.0")
    until(lambda: feed() == [f"{model}@1.1.0", f"{model}@1.0.0"])
    deprecate(owner, model)
    until(lambda: feed() == [f"{model}@1.0.0", f"{model}@1.1.0"])  # that it is on its way out
    assert list(person.collections.ListFollowing(c.ListFollowingRequest()).publishers) == [owner.profile.username]
    person.collections.UnfollowPublisher(c.UnfollowPublisherRequest(publisher=owner.profile.username))
    assert feed() == []
