"""`mercat try`: a model's samples, run by somebody who has never paid."""

import json
import subprocess
from typing import Any

import pytest
from mercat.billing.v1 import billing_pb2
from mercat.registry.v1 import registry_pb2

from tests import graphs
from tests.decoders import tiny_gguf
from tests.expect import until
from tests.platform import Account, Platform


def sample(title: str, body: dict[str, Any]) -> registry_pb2.Sample:
    return registry_pb2.Sample(title=title, request_json=json.dumps(body))


SUMS = [
    sample("Small ones", {"inputs": [{"name": "a", "data": [1, 2]}, {"name": "b", "data": [3, 4]}]}),
    sample("Large ones", {"inputs": [{"name": "a", "data": [1000]}, {"name": "b", "data": [2000]}]}),
]
TEXTS = [
    sample("A chat", {"messages": [{"role": "user", "content": "hello"}], "sampling": {"maxTokens": 4, "seed": 1}}),
    sample("A story", {"prompt": "the word", "sampling": {"maxTokens": 4, "seed": 1}}),
]


@pytest.fixture(scope="module")
def publisher(platform: Platform) -> Account:
    return platform.publisher()


def published(platform: Platform, publisher: Account, graph: bytes, samples: list[registry_pb2.Sample]) -> str:
    """At a price, with three calls free a month."""
    model = platform.publish(publisher, graph, samples=samples)
    component = billing_pb2.PriceComponent(meter="requests", nanos_per_million=10**15, free_units=3)
    publisher.billing.SetModelPrice(billing_pb2.SetModelPriceRequest(model=model, components=[component]))
    consumer = platform.sign_up()
    until(lambda: "3 of 3" in mercat(platform, consumer, "models", "show", model).stdout)
    return model


@pytest.fixture(scope="module")
def sums(platform: Platform, publisher: Account) -> str:
    return published(platform, publisher, graphs.addition(), SUMS)


def mercat(platform: Platform, person: Account, *args: str) -> "subprocess.CompletedProcess[str]":
    return platform.command(*args, MERCAT_API_KEY=person.api_key)


def test_a_sample_shows_its_answer_its_cost_and_what_is_left(platform: Platform, sums: str) -> None:
    person = platform.sign_up()
    shown = mercat(platform, person, "try", sums)
    assert shown.returncode == 0, shown.stderr
    for part in ("Small ones", f"{sums}@1.0.0", "4, 6", "0.00 USD", "2 of 3 requests left"):
        assert part in shown.stdout
    for wanted in ("2", "Large ones"):
        done = mercat(platform, person, "try", f"{sums}@1.0.0", "--sample", wanted, "--json")
        assert done.returncode == 0, done.stderr
        said = json.loads(done.stdout)
        assert said["sample"] == {"number": 2, "title": "Large ones", "request": json.loads(SUMS[1].request_json)}
        assert said["answer"]["outputs"][0]["data"] == [3000]
    assert said["allowances"][0]["leftUnits"] == "0"
    refused = mercat(platform, person, "try", sums)
    assert refused.returncode == 1
    assert "free for 3 requests a month" in refused.stderr
    assert "mercat topup" in refused.stderr
    assert "INSUFFICIENT_CREDIT" in refused.stderr


def test_a_text_is_written_as_it_comes(platform: Platform, publisher: Account) -> None:
    model, person = published(platform, publisher, tiny_gguf(11), TEXTS), platform.sign_up()
    shown = mercat(platform, person, "try", model)
    assert shown.returncode == 0, shown.stderr
    assert "2 of 3 requests left" in shown.stdout
    assert "tokens in" in shown.stderr
    for number, title in (("1", "A chat"), ("2", "A story")):
        done = mercat(platform, person, "try", model, "-s", number, "--json")
        assert done.returncode == 0, done.stderr
        said = json.loads(done.stdout)
        assert said["sample"]["title"] == title
        text = "".join(message.get("text", "") for message in said["messages"])
        version = publisher.registry.GetVersion(registry_pb2.GetVersionRequest(model=model, version="1.0.0")).version
        kept = json.loads(version.samples[int(number) - 1].response_json)
        assert text == kept.get("text", ""), "a call gives what validation was given, by the sample's seed"


def test_samples_are_listed_with_what_they_gave(platform: Platform, publisher: Account, sums: str) -> None:
    person = platform.sign_up()
    for args in (("try", sums, "--list"), ("models", "show", f"{sums}@1.0.0")):
        shown = mercat(platform, person, *args).stdout
        assert "sample 2" in shown
        assert "Large ones" in shown
        assert "sum INT64 [2]" in shown
    listed = json.loads(mercat(platform, person, "try", sums, "--list", "--json").stdout)
    assert [s["title"] for s in listed["samples"]] == ["Small ones", "Large ones"]
    missing = mercat(platform, person, "try", sums, "--sample", "Huge ones")
    assert (missing.returncode, "--list" in missing.stderr) == (1, True)
    bare = platform.publish(publisher, graphs.lookup())
    without = mercat(platform, person, "try", bare)
    assert (without.returncode, "has no samples" in without.stderr) == (1, True)
    unknown = mercat(platform, person, "try", f"{sums}:nightly")
    assert (unknown.returncode, "no alias nightly" in unknown.stderr) == (1, True)


def test_ones_own_model_that_is_not_on_the_market(platform: Platform, publisher: Account) -> None:
    name = platform.publish(publisher, graphs.addition(), samples=SUMS)
    hidden = mercat(platform, publisher, "models", "visibility", name, "private")
    assert hidden.returncode == 0, hidden.stderr
    done = mercat(platform, publisher, "try", name.partition("/")[2], "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["allowances"] == []
