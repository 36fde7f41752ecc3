"""Meters that few prices have: images, bytes of outputs and time of the engine; and calls in a model's subscription."""

import grpc
import pytest
from mercat.billing.v1 import billing_pb2, plans_pb2
from mercat.common.v1 import tensor_pb2
from mercat.inference.v1 import inference_pb2
from mercat.usage.v1 import usage_pb2

from services.common.errors import from_rpc_error
from tests import graphs
from tests.expect import until
from tests.integration.inference import many
from tests.integration.payments.cards import attach
from tests.platform import USD, Account, Platform

NANO = 1_000_000  # nanos per million: a nano for one


@pytest.fixture(scope="module")
def publisher(platform: Platform) -> Account:
    return platform.publisher()


def pictures(model: str, rows: int) -> inference_pb2.PredictRequest:
    request = inference_pb2.PredictRequest(model=model, raw_output=True)
    request.inputs.add(name="x", shape=[rows, 3, 2, 2], raw=bytes(4 * 12 * rows))
    return request


def test_what_is_measured_is_charged_and_no_more_than_was_quoted(platform: Platform, publisher: Account) -> None:
    price = {"images": 1000 * NANO, "output_bytes": 10 * NANO, "compute_us": 7 * NANO, "requests": NANO}
    model = platform.publish(publisher, graphs.picture(), batch=8, price=price)
    person = platform.sign_up(credit=USD)
    costs = []
    for rows in (3, 1):
        quote = person.inference.Quote(inference_pb2.QuoteRequest(model=model, inputs=pictures(model, rows).inputs))
        answer = person.inference.Predict(pictures(model, rows))
        assert len(answer.outputs[0].raw) == 4 * 24 * rows
        costs.append(answer.cost_nanos)
        assert quote.at_most
        assert quote.cost_nanos >= answer.cost_nanos > 0
        assert (quote.units["images"], quote.units["output_bytes"]) == (2 * rows, 4 * 24 * rows)
        assert quote.units["compute_us"] > 1_000_000
    records = sorted(many.records(person, 2), key=lambda r: -r.units["rows"])
    for record, rows, cost in zip(records, (3, 1), costs, strict=True):
        units = dict(record.units)
        took = units.pop("compute_us")
        assert units == {
            "requests": 1, "rows": rows, "input_bytes": 48 * rows, "images": 2 * rows, "output_bytes": 96 * rows,
        }  # fmt: skip
        assert 0 < took <= record.latency_us
        assert record.cost_nanos == cost == 1 + 2 * rows * 1000 + 96 * rows * 10 + took * 7
    until(lambda: person.balance() == USD - sum(costs))
    checked = platform.admin().check_ledger()
    assert checked.clean, checked.discrepancies


def test_the_most_that_a_call_can_come_to_must_be_there(platform: Platform, publisher: Account) -> None:
    model = platform.publish(publisher, graphs.addition(), price={"compute_us": NANO})
    person = platform.sign_up(credit=USD // 100)  # the engine may run for thirty seconds
    with pytest.raises(grpc.RpcError) as refused:
        person.inference.Predict(many.add(model, 1, 2))
    assert from_rpc_error(refused.value).reason == "INSUFFICIENT_CREDIT"
    person.top_up(USD)

    def answered() -> bool:  # a worker remembers for a moment that there was too little
        try:
            return 0 < person.inference.Predict(many.add(model, 1, 2)).cost_nanos < USD // 10
        except grpc.RpcError as e:
            if from_rpc_error(e).reason != "INSUFFICIENT_CREDIT":
                raise
            return False

    until(answered)


def test_texts_have_the_bytes_that_they_have(platform: Platform, publisher: Account) -> None:
    model = platform.publish(publisher, graphs.labelled(), price={"output_bytes": NANO})
    person = platform.sign_up(credit=USD)
    request = inference_pb2.PredictRequest(model=model)
    request.inputs.add(name="x", shape=[2, 4], raw=bytes(32))
    words = request.inputs.add(name="text", shape=[2])
    for word in ("é", "four"):
        words.data.values.add(string_value=word)
    assert person.inference.Predict(request).cost_nanos == 32 + (4 + 2) + (4 + 4)
    request.outputs.append("x_out")
    assert person.inference.Predict(request).cost_nanos == 32


def test_a_publisher_says_what_is_an_image(platform: Platform, publisher: Account) -> None:
    signature = tensor_pb2.Signature()
    signature.inputs.add(name="x", datatype="FP32", shape=[-1, 4])
    signature.inputs.add(name="text", datatype="BYTES", shape=[-1], image=True)  # encoded ones
    signature.outputs.add(name="x_out", datatype="FP32", shape=[-1, 4])
    signature.outputs.add(name="text_out", datatype="BYTES", shape=[-1])
    model = platform.publish(publisher, graphs.labelled(), price={"images": 5 * NANO}, signature=signature)
    person = platform.sign_up(credit=USD)
    shown = person.inference.GetSignature(inference_pb2.GetSignatureRequest(model=model)).signature
    assert [spec.image for spec in (*shown.inputs, *shown.outputs)] == [False, True, False, False]
    request = inference_pb2.PredictRequest(model=model)
    request.inputs.add(name="x", shape=[3, 4], raw=bytes(48))
    words = request.inputs.add(name="text", shape=[3])
    for _ in range(3):
        words.data.values.add(string_value="...")
    assert person.inference.Predict(request).cost_nanos == 15


def test_answers_from_the_cache_take_no_time(platform: Platform, publisher: Account) -> None:
    from mercat.registry.v1 import registry_pb2

    cache = registry_pb2.ResponseCache(ttl_seconds=600, hit_price_percent=50)
    price = {"output_bytes": 100 * NANO, "compute_us": NANO}
    model = platform.publish(publisher, graphs.picture(), batch=8, price=price, response_cache=cache)
    person = platform.sign_up(credit=USD)
    first, second = [person.inference.Predict(pictures(model, 2)).cost_nanos for _ in range(2)]
    assert first > 2 * 96 * 100
    assert second == 2 * 96 * 100 // 2
    hit = min(many.records(person, 2), key=lambda r: r.cost_nanos)
    assert (hit.units["output_bytes"], hit.units["compute_us"], hit.units["cache_hits"]) == (192, 0, 1)
    assert platform.admin().check_ledger().clean


def test_calls_of_a_subscriber_cost_what_the_offer_says(platform: Platform, publisher: Account) -> None:
    model = platform.publish(publisher, graphs.addition(), price={"requests": 1000 * NANO})
    request = plans_pb2.SetModelOfferRequest(model=model, monthly_nanos=5 * USD, discount_ppm=750_000)
    publisher.plans.SetModelOffer(request)
    person, other = platform.sign_up(credit=USD), platform.sign_up(credit=USD)
    attach(person)

    def cost(of: Account) -> int:
        return int(of.inference.Predict(many.add(model, 1, 2)).cost_nanos)

    assert (cost(person), cost(other)) == (1000, 1000)
    made = person.plans.SubscribeToModel(plans_pb2.SubscribeToModelRequest(model=model)).subscription
    assert made.discount_ppm == 750_000
    # The offer is another one by now; who has it keeps its terms.
    publisher.plans.SetModelOffer(plans_pb2.SetModelOfferRequest(model=model, monthly_nanos=5 * USD))
    until(lambda: cost(person) == 250)
    assert cost(other) == 1000
    quote = person.inference.Quote(inference_pb2.QuoteRequest(model=model, units={"requests": 4}))
    assert (quote.cost_nanos, quote.discount_ppm) == (1000, 750_000)
    cancel = plans_pb2.CancelSubscriptionRequest(subscription_id=made.subscription_id, at_once=True)
    person.plans.CancelSubscription(cancel)
    until(lambda: cost(person) == 1000)
    with pytest.raises(grpc.RpcError) as refused:
        publisher.plans.SetModelOffer(plans_pb2.SetModelOfferRequest(model=model, discount_ppm=1))
    assert [v.field for v in from_rpc_error(refused.value).violations] == ["discount_ppm"]
    until(lambda: person.usage.SummarizeUsage(usage_pb2.SummarizeUsageRequest()).calls >= 3)
    assert platform.admin().check_ledger().clean


def test_meters_that_nothing_has_are_refused(publisher: Account) -> None:
    with pytest.raises(grpc.RpcError) as refused:
        publisher.billing.SetModelPrice(
            billing_pb2.SetModelPriceRequest(model="x/y", components=[billing_pb2.PriceComponent(meter="seconds")])
        )
    assert [v.field for v in from_rpc_error(refused.value).violations] == ["components[0].meter"]
