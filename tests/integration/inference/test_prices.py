"""Prices with tiers, packages and allowances over two workers: exact whoever calls, and the same whenever they are
asked for."""

import asyncio
import json
import random
import time
import urllib.request
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest
from mercat.auth.v1 import auth_pb2
from mercat.billing.v1 import billing_pb2, prices_pb2
from mercat.inference.v1 import inference_pb2, inference_pb2_grpc, text_pb2
from mercat.marketplace.v1 import marketplace_pb2
from mercat.registry.v1 import registry_pb2
from mercat.usage.v1 import usage_pb2
from redis import Redis

from services.common import pricing
from services.common.errors import MercatError, from_rpc_error
from services.common.receipts import recomputed, verify
from tests import graphs
from tests.decoders import tiny_gguf
from tests.platform import USD, Account, Platform

NANO = 1_000_000  # nanos per million: a nano for one
GRADUATED, VOLUME = billing_pb2.TIER_MODE_GRADUATED, billing_pb2.TIER_MODE_VOLUME


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    with Platform(tmp_path_factory.mktemp("prices") / "home", workers=2, demo=False) as running:
        yield running


@pytest.fixture(scope="module")
def publisher(running: Platform) -> Account:
    return running.publisher()


def component(meter: str = "rows", *tiers: tuple[int, int], **fields: Any) -> billing_pb2.PriceComponent:
    made = billing_pb2.PriceComponent(meter=meter, **fields)
    for up_to, nanos in tiers:
        made.tiers.add(up_to=up_to, nanos_per_million=nanos * NANO)
    return made


TIERED = component("rows", (100, 5000), (300, 3000), (0, 1000), tier_mode=GRADUATED)


def priced(
    running: Platform, publisher: Account, *components: billing_pb2.PriceComponent, graph: bytes = b"", **fields: Any
) -> str:
    """A new model at a price. `fields`: more of the price."""
    model = running.publish(publisher, graph or graphs.tiny(), batch=0 if graph else 64)
    set_price(publisher, model, *components, **fields)
    return model


def set_price(
    publisher: Account, model: str, *components: billing_pb2.PriceComponent, **fields: Any
) -> billing_pb2.Price:
    request = billing_pb2.SetModelPriceRequest(model=model, components=components, **fields)
    return publisher.billing.SetModelPrice(request).price  # type: ignore[no-any-return]


def request_of(model: str, rows: int = 1) -> inference_pb2.PredictRequest:
    request = inference_pb2.PredictRequest(model=model)
    request.inputs.append(inference_pb2.Tensor(name="x", datatype="FP32", shape=[rows, 4], raw=bytes(16 * rows)))
    return request


def predict(person: Account, model: str, rows: int = 1) -> inference_pb2.PredictResponse:
    return person.inference.Predict(request_of(model, rows))  # type: ignore[no-any-return]


def refusal(call: Any) -> MercatError:
    with pytest.raises(grpc.RpcError) as caught:
        call()
    return from_rpc_error(caught.value)


@dataclass
class Crowd:
    """Callers on connections of their own, so that each worker has some."""

    running: Platform
    person: Account
    model: str
    costs: list[int] = field(default_factory=list)
    rows: int = 0
    errors: list[MercatError] = field(default_factory=list)

    async def call(self, calls: int, most_rows: int = 1) -> None:
        await asyncio.gather(*(self._caller(calls, most_rows, seed) for seed in range(4)))

    async def _caller(self, calls: int, most_rows: int, seed: int) -> None:
        numbers = random.Random(seed)
        async with connected(self.running) as channel:
            stub = inference_pb2_grpc.InferenceServiceStub(channel)
            for _ in range(calls):
                rows = numbers.randint(1, most_rows)
                try:
                    answer = await stub.Predict(request_of(self.model, rows), metadata=self.person.metadata, timeout=30)
                except grpc.aio.AioRpcError as e:
                    self.errors.append(from_rpc_error(e))
                else:
                    self.costs.append(answer.cost_nanos)
                    self.rows += rows


@asynccontextmanager
async def connected(running: Platform) -> AsyncIterator[grpc.aio.Channel]:
    async with grpc.aio.insecure_channel(running.grpc, options=[("grpc.use_local_subchannel_pool", 1)]) as channel:
        yield channel


def records(person: Account, expected: int) -> list[usage_pb2.UsageRecord]:
    """All calls of a person, once so many are recorded."""
    deadline = time.monotonic() + 15
    while True:
        found = person.usage.ListUsage(usage_pb2.ListUsageRequest(page_size=1000)).records
        if len(found) >= expected or time.monotonic() > deadline:
            assert len(found) == expected
            return list(found)
        time.sleep(0.1)


def exact(rows: int, *components: billing_pb2.PriceComponent) -> int:
    """What so many rows of a month cost."""
    return pricing.cost(pricing.read(billing_pb2.Price(components=components)), {"rows": rows})


async def test_callers_over_two_workers_pay_what_their_sum_costs(running: Platform, publisher: Account) -> None:
    person = running.sign_up(credit=USD)
    crowd = Crowd(running, person, priced(running, publisher, TIERED))
    await crowd.call(75, most_rows=3)
    assert not crowd.errors
    assert crowd.rows > 450, "all tiers were reached"
    assert sum(crowd.costs) == exact(crowd.rows, TIERED)
    taken = sorted((r.rating.positions["rows"], r.units["rows"]) for r in records(person, 300))
    ends = [at + rows for at, rows in taken]
    assert [at for at, _ in taken] == [0, *ends[:-1]], "no unit was given to two calls, and none was left out"
    checked = running.admin().check_ledger()
    assert checked.clean, checked.discrepancies
    assert person.balance() == USD - sum(crowd.costs)


async def test_a_crowd_without_credit_gets_exactly_what_is_free(running: Platform, publisher: Account) -> None:
    price = component("requests", nanos_per_million=7000 * NANO, free_units=25)
    crowd = Crowd(running, running.sign_up(), priced(running, publisher, price))
    await crowd.call(15)
    assert crowd.costs == [0] * 25
    assert {e.reason for e in crowd.errors} == {"INSUFFICIENT_CREDIT"}
    paying = Crowd(running, running.sign_up(credit=USD), crowd.model)
    await paying.call(15)
    assert sorted(paying.costs) == [0] * 25 + [7000] * 35


async def test_redis_may_forget_everything_in_the_middle(running: Platform, publisher: Account) -> None:
    crowd = Crowd(running, running.sign_up(credit=USD), priced(running, publisher, TIERED))
    await crowd.call(5, most_rows=3)
    calling = asyncio.create_task(crowd.call(60, most_rows=3))
    redis = Redis.from_url(running.redis_url())
    while len(crowd.costs) < 100:
        await asyncio.sleep(0.01)
    redis.flushall()
    redis.close()
    await calling
    assert not crowd.errors
    assert sum(crowd.costs) == exact(crowd.rows, TIERED)


async def test_without_redis_calls_go_on_and_their_costs_stay_near(running: Platform, publisher: Account) -> None:
    person = running.sign_up(credit=USD)
    crowd = Crowd(running, person, priced(running, publisher, TIERED))
    await crowd.call(10, most_rows=3)
    running.kill("valkey")
    await crowd.call(40, most_rows=3)
    assert not crowd.errors
    least = exact(crowd.rows, TIERED)
    assert least <= sum(crowd.costs) <= 2 * least, "two workers counted apart for a moment"
    records(person, 200)
    checked = running.admin().check_ledger()
    assert checked.clean, checked.discrepancies


@pytest.mark.parametrize(
    ("price", "rows", "costs"),
    [
        (component("rows", (10, 50), (0, 20), tier_mode=VOLUME), [8, 4, 20, 10], [400, 100, 140, 200]),
        (component("rows", package_units=10, package_nanos=700), [4, 4, 4, 8, 25], [700, 0, 700, 0, 1400 + 700]),
    ],
    ids=["volume", "packages"],
)
def test_volume_and_packages(
    running: Platform, publisher: Account, price: billing_pb2.PriceComponent, rows: list[int], costs: list[int]
) -> None:
    person, model = running.sign_up(credit=USD), priced(running, publisher, price)
    assert [predict(person, model, n).cost_nanos for n in rows] == costs
    assert sum(costs) == exact(sum(rows), price)


def test_a_paid_package_can_be_used_with_an_empty_wallet(running: Platform, publisher: Account) -> None:
    person = running.sign_up(credit=700)
    model = priced(running, publisher, component("rows", package_units=10, package_nanos=700))
    assert [predict(person, model, 4).cost_nanos for _ in range(2)] == [700, 0]
    assert refusal(lambda: predict(person, model, 4)).reason == "INSUFFICIENT_CREDIT"
    assert predict(person, model, 2).cost_nanos == 0, "the refused call took none of it"


def test_a_minimum_and_a_price_that_is_no_sum(running: Platform, publisher: Account) -> None:
    person = running.sign_up(credit=USD)
    model = priced(running, publisher, component("rows", nanos_per_million=10 * NANO), minimum_nanos=35)
    assert [predict(person, model, n).cost_nanos for n in (1, 4)] == [35, 40]


def test_a_quote_is_the_charge_that_follows(running: Platform, publisher: Account) -> None:
    person, model = running.sign_up(credit=USD), priced(running, publisher, TIERED, minimum_nanos=6000)
    predict(person, model, 50)
    predict(person, model, 45)
    asked = inference_pb2.QuoteRequest(model=model, inputs=request_of(model, 10).inputs)
    quote = person.inference.Quote(asked)
    assert (quote.cost_nanos, dict(quote.positions)) == (5 * 5000 + 5 * 3000, {"rows": 95})
    assert [(line.tier, line.units, line.amount_nanos) for line in quote.lines] == [(1, 5, 25000), (2, 5, 15000)]
    now = datetime.now(UTC)
    assert now + timedelta(minutes=4) < quote.valid_until.ToDatetime(UTC) <= now + timedelta(minutes=5, seconds=1)
    assert predict(person, model, 10).cost_nanos == quote.cost_nanos
    many = person.inference.Quote(inference_pb2.QuoteRequest(model=model, units={"rows": 1}, calls=250))
    assert dict(many.units) == {"requests": 250, "rows": 250}
    assert many.cost_nanos == 250 * 6000, "each call costs at least the minimum"
    for request, name in (
        (inference_pb2.QuoteRequest(model=model), "inputs"),
        (inference_pb2.QuoteRequest(model=model, units={"pages": 1}), "units['pages']"),
    ):
        error = refusal(lambda request=request: person.inference.Quote(request))
        assert (error.reason, [v.field for v in error.violations]) == ("INVALID_FIELDS", [name])
    tester = Account(running, person.auth.CreateApiKey(auth_pb2.CreateApiKeyRequest(name="t", test=True)).secret)
    assert (tester.inference.Quote(asked).cost_nanos, predict(tester, model).cost_nanos) == (0, 0)


def test_what_costs_more_than_there_is_money_is_refused(running: Platform, publisher: Account) -> None:
    person = running.sign_up(credit=USD)
    model = priced(running, publisher, component("rows", nanos_per_million=10**15))
    asked = inference_pb2.QuoteRequest(model=model, units={"rows": 10**15})
    assert refusal(lambda: person.inference.Quote(asked)).reason == "COST_TOO_LARGE"


def test_a_price_takes_effect_at_its_moment(running: Platform, publisher: Account) -> None:
    person, model = running.sign_up(credit=USD), priced(running, publisher, component(nanos_per_million=10 * NANO))
    assert predict(person, model).cost_nanos == 10
    request = billing_pb2.SetModelPriceRequest(model=model, components=[component(nanos_per_million=25 * NANO)])
    at = datetime.now(UTC) + timedelta(seconds=3)
    request.effective_at.FromDatetime(at)
    later = publisher.billing.SetModelPrice(request).price
    assert later.effective_at.ToDatetime(UTC) == at
    current = person.billing.GetModelPrice(billing_pb2.GetModelPriceRequest(model=model)).price
    assert current.components[0].nanos_per_million == 10 * NANO
    quote = person.inference.Quote(inference_pb2.QuoteRequest(model=model, units={"rows": 1}))
    assert (quote.cost_nanos, quote.valid_until.ToDatetime(UTC)) == (10, at)
    costs: list[tuple[datetime, int]] = []
    while datetime.now(UTC) < at + timedelta(seconds=1):
        costs.append((datetime.now(UTC), predict(person, model).cost_nanos))
        time.sleep(0.02)
    margin = timedelta(milliseconds=250)
    assert {cost for when, cost in costs if when < at - margin} == {10}
    assert {cost for when, cost in costs if when > at} == {25}
    periods = person.prices.ListModelPrices(prices_pb2.ListModelPricesRequest(model=model)).periods
    assert [p.price.price_id for p in periods] == [later.price_id, current.price_id]
    assert (periods[1].end_time, periods[0].HasField("end_time")) == (later.effective_at, False)
    listing, deadline = marketplace_pb2.GetListingRequest(model=model), time.monotonic() + 10
    while person.marketplace.GetListing(listing).listing.price != later:
        assert time.monotonic() < deadline, "the marketplace shows a price that is past"
        time.sleep(0.1)
    checked = running.admin().check_ledger()
    assert checked.clean, checked.discrepancies


def test_a_discount_is_taken_off_and_ends(running: Platform, publisher: Account) -> None:
    person, model = running.sign_up(credit=USD), priced(running, publisher, component(nanos_per_million=100 * NANO))
    other = priced(running, publisher, TIERED)
    org_id = person.profile.org_id

    def until(cost: int, of: str = model) -> None:
        deadline = time.monotonic() + 5
        while (seen := predict(person, of).cost_nanos) != cost and time.monotonic() < deadline:
            time.sleep(0.05)
        assert seen == cost

    until(100)
    publisher.prices.SetDiscount(prices_pb2.SetDiscountRequest(org_id=org_id, discount_ppm=200_000))
    until(80)
    until(4000, other)
    mine = prices_pb2.SetDiscountRequest(org_id=org_id, model=model, discount_ppm=1_000_000)
    publisher.prices.SetDiscount(mine)
    until(0)
    assert predict(running.sign_up(credit=USD), model).cost_nanos == 100, "nobody else has it"
    given = publisher.prices.ListDiscounts(prices_pb2.ListDiscountsRequest()).discounts
    assert [(d.model, d.discount_ppm) for d in given] == [("", 200_000), (model, 1_000_000)]
    publisher.prices.DeleteDiscount(prices_pb2.DeleteDiscountRequest(org_id=org_id, model=model))
    until(80)
    publisher.prices.DeleteDiscount(prices_pb2.DeleteDiscountRequest(org_id=org_id))
    until(100)
    checked = running.admin().check_ledger()
    assert checked.clean, checked.discrepancies


def receipt_of(person: Account, request_id: str) -> billing_pb2.Receipt:
    deadline = time.monotonic() + 10
    while True:
        try:
            return person.receipts.GetReceipt(billing_pb2.GetReceiptRequest(request_id=request_id)).receipt  # type: ignore[no-any-return]
        except grpc.RpcError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)


async def test_a_call_that_is_made_again_costs_what_it_cost(tmp_path: Path) -> None:
    """The worker dies with the reply in hand; the repetition has the first attempt's position."""
    with Platform(tmp_path / "home", workers=1, env={"MERCAT_FAILPOINTS": "inference.after_ack=3"}) as alone:
        owner, person = alone.publisher(), alone.sign_up(credit=USD)
        model = priced(alone, owner, component("requests", (2, 500), (3, 70), (0, 9), tier_mode=GRADUATED))
        first, costs = alone.pids()["worker-0"], list[int]()
        for n in range(5):
            deadline = time.monotonic() + 60
            while True:
                try:
                    metadata = (("idempotency-key", f"call-{n}"),)
                    costs.append(person.inference.Predict(request_of(model), metadata=metadata).cost_nanos)
                    break
                except grpc.RpcError as e:
                    error = from_rpc_error(e)
                    assert error.retryable or error.reason == "IDEMPOTENCY_KEY_RUNNING", error
                    assert time.monotonic() < deadline
                    time.sleep(0.2)
        assert alone.pids()["worker-0"] != first, "the worker was not killed: the case proves nothing"
        assert costs == [500, 500, 70, 9, 9]
        assert sorted(r.rating.positions["requests"] for r in records(person, 5)) == [0, 1, 2, 3, 4]
        checked = alone.admin().check_ledger()
        assert checked.clean, checked.discrepancies


def test_a_receipt_holds_offline(running: Platform, publisher: Account, tmp_path: Path) -> None:
    person, model = running.sign_up(credit=USD), priced(running, publisher, TIERED)
    discount = prices_pb2.SetDiscountRequest(org_id=person.profile.org_id, model=model, discount_ppm=333_333)
    publisher.prices.SetDiscount(discount)
    predict(person, model, 60)
    predict(person, model, 39)
    answer = predict(person, model, 2)
    receipt = receipt_of(person, answer.request_id)
    assert dict(receipt.rating.positions) == {"rows": 99}
    assert receipt.rating.discount_ppm == 333_333
    assert receipt.cost_nanos == answer.cost_nanos == recomputed(receipt) == round(8000 * 0.666667)
    keys = running.anonymous.receipts.GetReceiptKeys(billing_pb2.GetReceiptKeysRequest())
    assert verify(receipt.signed, keys.keys) == receipt
    (tmp_path / "call.receipt").write_text(receipt.signed)
    (tmp_path / "keys.json").write_text(running.command("receipts", "keys").stdout)
    done = running.command("receipts", "verify", str(tmp_path / "call.receipt"), "--keys", str(tmp_path / "keys.json"))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "its price makes this cost" in done.stdout


def test_answers_from_the_cache_cost_their_share(running: Platform, publisher: Account) -> None:
    cache = registry_pb2.ResponseCache(ttl_seconds=60, hit_price_percent=50)
    model = running.publish(publisher, graphs.tiny(), batch=64, response_cache=cache)
    set_price(publisher, model, component("requests", (1, 101), (0, 51), tier_mode=GRADUATED))
    person = running.sign_up(credit=USD)
    answers = [predict(person, model) for _ in range(3)]
    assert [(a.cost_nanos, a.cached) for a in answers] == [(101, False), (26, True), (26, True)]
    receipt = receipt_of(person, answers[1].request_id)
    assert (receipt.rating.share_ppm, recomputed(receipt)) == (500_000, 26)


def test_the_cost_is_in_rests_header_and_in_trailers(running: Platform, publisher: Account) -> None:
    person, model = running.sign_up(credit=USD), priced(running, publisher, TIERED)
    body = json.dumps({"inputs": [{"name": "x", "data": [[1, 2, 3, 4]]}]}).encode()
    asked = urllib.request.Request(
        f"{running.rest}/v1/models/{model}:predict", body,
        {"authorization": f"Bearer {person.api_key}", "content-type": "application/json"},
    )  # fmt: skip
    with urllib.request.urlopen(asked, timeout=20) as answer:
        assert answer.headers["mercat-cost-nanos"] == json.load(answer)["costNanos"] == "5000"
    _, call = person.inference.Predict.with_call(request_of(model))
    assert dict(call.trailing_metadata())["mercat-cost-nanos"] == "5000"


def test_texts_are_rated_by_what_was_delivered(running: Platform, publisher: Account) -> None:
    price = component("output_tokens", (10, 500), (0, 200), tier_mode=GRADUATED)
    model = priced(running, publisher, price, graph=tiny_gguf(1))
    person = running.sign_up(credit=USD)
    total = cost = 0

    def generate(who: Account, of: str) -> text_pb2.GenerateResponse:
        request = text_pb2.GenerateRequest(
            model=of, prompt="hello world", sampling=text_pb2.Sampling(max_tokens=8, seed=5)
        )
        *_, last = who.text.Generate(request)
        return last

    free = component("output_tokens", nanos_per_million=NANO, free_units=20)
    allowed, poor = priced(running, publisher, free, graph=tiny_gguf(2)), running.sign_up()
    used = generate(poor, allowed).usage.output_tokens
    while used + 8 <= 20:
        used += generate(poor, allowed).usage.output_tokens
    assert refusal(lambda: generate(poor, allowed)).reason == "INSUFFICIENT_CREDIT", "the longest answer is not free"
    for _ in range(3):
        last = generate(person, model)
        total, cost = total + last.usage.output_tokens, cost + last.usage.cost_nanos
    assert total > 10
    assert cost == pricing.cost(pricing.read(billing_pb2.Price(components=[price])), {"output_tokens": total})
    assert person.balance() >= USD - cost
    quote = person.inference.Quote(inference_pb2.QuoteRequest(model=model, units={"output_tokens": 4}))
    assert (quote.cost_nanos, dict(quote.positions)) == (800, {"output_tokens": total})
    request = text_pb2.GenerateRequest(
        model=model, prompt="hello world", sampling=text_pb2.Sampling(max_tokens=400, seed=5)
    )
    leaving = person.text.Generate(request)
    next(leaving)
    leaving.cancel()
    last = max(records(person, 4), key=lambda r: r.rating.positions["output_tokens"])
    assert last.rating.positions["output_tokens"] == total
    assert last.cost_nanos == 200 * last.units["output_tokens"] > 0


@pytest.mark.parametrize(
    ("fields", "reason", "named"),
    [
        ({"components": [component("rows", (5, 1), (3, 1), (0, 1), tier_mode=GRADUATED)]}, "INVALID_FIELDS",
         "components[0].tiers[1].up_to"),
        ({"components": [component("rows", (-1, 1), (0, 1), tier_mode=GRADUATED)]}, "INVALID_FIELDS",
         "components[0].tiers[0].up_to"),
        ({"components": [component("rows", package_nanos=3)]}, "INVALID_FIELDS", "components[0].package_units"),
        ({"components": [component("pages", nanos_per_million=3)]}, "INVALID_FIELDS", "components[0].meter"),
        ({"minimum_nanos": -1}, "INVALID_FIELDS", "minimum_nanos"),
        ({"currency": "EUR"}, "CURRENCY_UNSUPPORTED", "currency"),
        ({"effective_at": {"seconds": 1_700_000_000}}, "INVALID_FIELDS", "effective_at"),
        ({"effective_at": {"seconds": 10**15}}, "INVALID_FIELDS", "effective_at"),
    ],
)  # fmt: skip
def test_a_wrong_price_is_refused_by_its_field(
    running: Platform, publisher: Account, fields: dict[str, Any], reason: str, named: str
) -> None:
    request = billing_pb2.SetModelPriceRequest(model=f"{publisher.profile.username}/any", **fields)
    error = refusal(lambda: publisher.billing.SetModelPrice(request))
    assert (error.reason, [v.field for v in error.violations]) == (reason, [named])


def test_discounts_are_for_those_who_are_there(running: Platform, publisher: Account) -> None:
    someone, own = running.sign_up(), running.publish(publisher, graphs.tiny())
    for org_id, model, reason in (
        ("org_none", "", "ACCOUNT_NOT_FOUND"),
        (someone.profile.org_id, "nobody/nothing", "MODEL_NOT_FOUND"),
    ):
        asked = prices_pb2.SetDiscountRequest(org_id=org_id, model=model, discount_ppm=1)
        assert refusal(lambda asked=asked: publisher.prices.SetDiscount(asked)).reason == reason
    theirs = prices_pb2.SetDiscountRequest(org_id=someone.profile.org_id, model=own, discount_ppm=1)
    assert refusal(lambda: running.publisher().prices.SetDiscount(theirs)).reason == "MODEL_NOT_FOUND"
    assert refusal(lambda: someone.prices.SetDiscount(theirs)).reason in ("ROLE_MISSING", "SCOPE_MISSING")
    gone = prices_pb2.DeleteDiscountRequest(org_id=someone.profile.org_id)
    assert refusal(lambda: publisher.prices.DeleteDiscount(gone)).reason == "DISCOUNT_NOT_FOUND"


def test_the_command_line(running: Platform, publisher: Account, tmp_path: Path) -> None:
    model = running.publish(publisher, graphs.tiny(), batch=64)
    person = running.sign_up(credit=USD)

    def mercat(who: Account, *args: str) -> str:
        done = running.command(*args, MERCAT_API_KEY=who.api_key)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    tiers = "rows=100:0.002,1k:0.001+0.5,0.5/1K"
    shown = mercat(publisher, "price", "set", model, "--tiers", tiers, "--allowance", "rows=10", "--minimum", "0.0001")
    assert "11 to 110" in shown
    assert "0.0005 USD a row" in shown
    assert "from 1,011 on" in mercat(person, "price", "show", model)
    quoted = mercat(person, "quote", model, "--rows", "20", "--calls", "2")
    assert "0.06 USD" in quoted
    assert "rows, free" in quoted
    later = tmp_path / "price.yaml"
    later.write_text("components:\n- {meter: requests, package_units: 1000, package_nanos: 5000000000}\n")
    mercat(publisher, "price", "set", model, "--file", str(later), "--effective-at", "1h")
    assert "5.00 USD for 1,000 requests" in mercat(person, "price", "show", model)
    listed = json.loads(mercat(person, "price", "list", model, "--json"))
    assert len(listed["periods"]) == 2
    mercat(publisher, "price", "discount", person.profile.org_id, "12.5", "--model", model)
    assert "12.5 %" in mercat(publisher, "price", "discounts")
    assert "at least 0.0001 USD a call" in mercat(person, "models", "show", model)
