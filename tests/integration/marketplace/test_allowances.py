"""What is free of a model each month: to have without any credit, and to see before, meanwhile and afterwards."""

import asyncio
import json
import time
import urllib.request
from datetime import UTC, datetime, timedelta
from typing import Any

import grpc
import pytest
from mercat.billing.v1 import billing_pb2
from mercat.inference.v1 import inference_pb2
from mercat.marketplace.v1 import marketplace_pb2

from services.common.rpc.channels import InternalChannel
from services.marketplace.allowances import Allowances
from tests import graphs
from tests.expect import fails, until
from tests.platform import USD, Account, Platform, free_port

NANO = 1_000_000  # nanos per million: a nano for one


class Trial:
    """A model of which some rows and requests are free."""

    def __init__(self, platform: Platform) -> None:
        self.platform = platform
        self.publisher = platform.publisher()
        self.model = self.priced(("requests", 3), ("rows", 10))

    def priced(self, *free: tuple[str, int]) -> str:
        """A new model at a nano for each; the units are free each month."""
        model = self.platform.publish(self.publisher, graphs.tiny(), batch=64)
        components = [billing_pb2.PriceComponent(meter=m, nanos_per_million=NANO, free_units=n) for m, n in free]
        self.publisher.billing.SetModelPrice(billing_pb2.SetModelPriceRequest(model=model, components=components))
        until(lambda: self.components(model) == components)
        return model

    def components(self, model: str) -> list[billing_pb2.PriceComponent] | None:
        """Of the price that the listing has; None before there is one."""
        try:
            return list(self.listing(self.platform.anonymous, model).price.components)
        except grpc.RpcError:
            return None

    def listing(self, person: Account, model: str = "") -> marketplace_pb2.Listing:
        request = marketplace_pb2.GetListingRequest(model=model or self.model)
        return person.marketplace.GetListing(request).listing  # type: ignore[no-any-return]

    def left(self, person: Account) -> dict[str, tuple[int, int]]:
        """Used and left, by meter."""
        return {a.meter: (a.used_units, a.left_units) for a in self.listing(person).allowances}

    def request(self, rows: int = 1) -> inference_pb2.PredictRequest:
        tensor = inference_pb2.Tensor(name="x", datatype="FP32", shape=[rows, 4], raw=bytes(16 * rows))
        return inference_pb2.PredictRequest(model=self.model, inputs=[tensor])

    def call(self, person: Account, rows: int = 1) -> inference_pb2.PredictResponse:
        return person.inference.Predict(self.request(rows))  # type: ignore[no-any-return]

    def paid(self, person: Account) -> int:
        """What a call cost; 0 while a worker has not heard of the credit."""
        try:
            return self.call(person, 2).cost_nanos
        except grpc.RpcError:
            return 0


@pytest.fixture(scope="module")
def trial(platform: Platform) -> Trial:
    return Trial(platform)


def next_month() -> datetime:
    begin = datetime.now(UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    return (begin + timedelta(days=31)).replace(day=1)


def test_who_never_paid_has_what_is_free_and_then_learns_what_to_do(trial: Trial) -> None:
    person = trial.platform.sign_up()
    assert [trial.call(person, 2).cost_nanos for _ in range(3)] == [0, 0, 0]
    refused = fails(person.inference.Predict, trial.request())
    assert refused.reason == "INSUFFICIENT_CREDIT"
    assert "free for 3 requests, 10 rows a month" in refused.message
    assert "mercat topup" in refused.message
    assert refused.metadata["allowance_resets_at"] == next_month().strftime("%Y-%m-%dT%H:%M:%SZ")
    assert trial.left(person) == {"requests": (3, 0), "rows": (6, 4)}, "the refused call took none of it"
    person.top_up(USD)
    costs: list[int] = []
    until(lambda: costs.append(trial.paid(person)) or costs[-1])
    assert costs[-1] == 1, "one request; its rows are free still"


def test_a_listing_says_what_is_left_for_who_asks(trial: Trial) -> None:
    person, other = trial.platform.sign_up(), trial.platform.sign_up()
    shown = trial.listing(trial.platform.anonymous)
    assert shown.free_to_try
    assert [(a.meter, a.free_units) for a in shown.allowances] == [("requests", 3), ("rows", 10)]
    assert not any(a.HasField(name) for a in shown.allowances for name in ("used_units", "left_units", "resets_at"))
    assert trial.left(person) == {"requests": (0, 3), "rows": (0, 10)}
    trial.call(person, 4)
    assert trial.left(person) == {"requests": (1, 2), "rows": (4, 6)}, "at once, and exactly"
    assert trial.left(other) == {"requests": (0, 3), "rows": (0, 10)}, "each organisation has its own"
    assert {a.resets_at.ToDatetime(UTC) for a in trial.listing(person).allowances} == {next_month()}
    owner = trial.platform.organisation(other)
    colleague = trial.platform.join(owner, person, "developer")
    trial.call(colleague, 1)
    assert trial.left(owner) == {"requests": (1, 2), "rows": (1, 9)}, "it is the organisation's"
    assert trial.left(person) == {"requests": (1, 2), "rows": (4, 6)}


def test_the_books_have_what_the_listing_says(trial: Trial) -> None:
    person = trial.platform.sign_up(credit=USD)
    costs = [trial.call(person, 3).cost_nanos for _ in range(5)]
    assert costs == [0, 0, 0, 1 + 2, 1 + 3]
    assert trial.left(person) == {"requests": (5, 0), "rows": (15, 0)}
    until(lambda: person.balance() == USD - sum(costs))


def test_a_quote_says_what_is_covered_and_what_stays(trial: Trial) -> None:
    person = trial.platform.sign_up()
    trial.call(person, 4)

    def quoted(**asked: Any) -> tuple[int, dict[str, tuple[int, int, int]]]:
        quote = person.inference.Quote(inference_pb2.QuoteRequest(model=trial.model, **asked))
        assert all(a.resets_at.ToDatetime(UTC) == next_month() for a in quote.allowances)
        return quote.cost_nanos, {a.meter: (a.free_units, a.covered_units, a.left_units) for a in quote.allowances}

    assert quoted(units={"rows": 2}) == (0, {"requests": (3, 1, 1), "rows": (10, 2, 4)})
    assert quoted(units={"rows": 4}, calls=3) == (1 + 6, {"requests": (3, 2, 0), "rows": (10, 6, 0)})
    assert quoted(inputs=trial.request(5).inputs) == (0, {"requests": (3, 1, 1), "rows": (10, 5, 1)})
    assert trial.left(person) == {"requests": (1, 2), "rows": (4, 6)}, "a quote takes nothing"


def test_what_can_be_tried_is_found(trial: Trial) -> None:
    name = trial.publisher.profile.username
    free, dear = trial.priced(), trial.priced(("rows", 0))
    half = trial.priced(("requests", 5), ("rows", 0))

    def found(**asked: Any) -> dict[str, bool]:
        request = marketplace_pb2.SearchModelsRequest(publisher=name, page_size=100, **asked)
        return {h.model: h.free_to_try for h in trial.platform.anonymous.marketplace.SearchModels(request).hits}

    expected = {trial.model: True, free: True, dear: False, half: False}
    until(lambda: found() == expected)
    until(lambda: found(free_to_try=True) == {trial.model: True, free: True})
    assert not trial.listing(trial.platform.anonymous, half).free_to_try, "its rows cost from the first on"


def test_over_rest_and_at_the_terminal(trial: Trial) -> None:
    person = trial.platform.sign_up()
    trial.call(person, 4)
    address = f"{trial.platform.rest}/v1/listings/{trial.model}"
    request = urllib.request.Request(address, headers={"authorization": f"Bearer {person.api_key}"})
    with urllib.request.urlopen(request, timeout=20) as reply:
        shown = json.load(reply)
    assert shown["freeToTry"]
    assert shown["allowances"][1] == {
        "meter": "rows", "freeUnits": "10", "usedUnits": "4", "leftUnits": "6",
        "resetsAt": next_month().strftime("%Y-%m-%dT%H:%M:%SZ"),
    }  # fmt: skip

    def mercat(*args: str) -> str:
        done = trial.platform.command(*args, MERCAT_API_KEY=person.api_key)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    assert "6 of 10 rows left" in mercat("models", "show", trial.model)
    assert json.loads(mercat("models", "show", trial.model, "--json"))["allowances"][0]["leftUnits"] == "2"
    assert "3 of 10 rows left" in mercat("quote", trial.model, "--rows", "3")
    publisher = trial.publisher.profile.username
    assert trial.model in mercat("search", "--publisher", publisher, "--free-to-try", "--json")


async def test_while_no_worker_can_be_asked_a_listing_says_what_is_free_alone(trial: Trial) -> None:
    listing = await asyncio.to_thread(trial.listing, trial.platform.anonymous)
    nobody = InternalChannel(f"127.0.0.1:{free_port()}", "token")
    try:
        before = time.monotonic()
        for allowances in (Allowances(nobody), Allowances(None)):
            known = await allowances.of(listing, "org_somebody")
            assert [(a.meter, a.free_units, a.HasField("left_units")) for a in known] == [
                ("requests", 3, False), ("rows", 10, False),
            ]  # fmt: skip
        assert time.monotonic() - before < 5
    finally:
        await nobody.close()
