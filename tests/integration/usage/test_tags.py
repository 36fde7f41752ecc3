"""What a caller sets on a call is found in their usage, whichever way they called, and nowhere else."""

import json
import time
import urllib.request

import grpc
import numpy as np
import pytest
import tritonclient.grpc as triton
from mercat.inference.v1 import inference_pb2
from mercat.usage.v1 import usage_pb2

from services.common.errors import from_rpc_error
from tests import graphs
from tests.platform import USD, Account, Platform


@pytest.fixture(scope="module")
def publisher(platform: Platform) -> Account:
    return platform.publisher()


@pytest.fixture(scope="module")
def model(platform: Platform, publisher: Account) -> str:
    return platform.publish(publisher, graphs.addition(), "adder", batch=16, price={"requests": 1_000_000 * 1_000_000})


def _request(model: str) -> inference_pb2.PredictRequest:
    row = np.arange(2, dtype=np.int64).tobytes()
    return inference_pb2.PredictRequest(
        model=model, inputs=[inference_pb2.Tensor(name=n, shape=[2], raw=row) for n in ("a", "b")]
    )


def _recorded(person: Account, calls: int, view: int = usage_pb2.USAGE_VIEW_CONSUMER) -> list[dict[str, str]]:
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        records = person.usage.ListUsage(usage_pb2.ListUsageRequest(view=view)).records  # type: ignore[arg-type]
        if len(records) >= calls:
            break
        time.sleep(0.05)
    assert len(records) == calls
    return [dict(r.tags) for r in records]


def test_tags_reach_usage_from_every_edge(platform: Platform, publisher: Account, model: str) -> None:
    person = platform.sign_up(credit=USD)
    said = [("mercat-tag", "team=research"), ("mercat-tag", "env=prod")]
    wanted = {"team": "research", "env": "prod"}
    person.inference.Predict(_request(model), metadata=said)
    batch = inference_pb2.BatchPredictRequest(requests=[_request(model), _request(model)])
    person.inference.BatchPredict(batch, metadata=said)
    body = {"inputs": [{"name": "a", "data": [1, 2]}, {"name": "b", "data": [3, 4]}]}
    asked = urllib.request.Request(
        f"{platform.rest}/v1/models/{model}:predict", json.dumps(body).encode(),
        {"authorization": f"Bearer {person.api_key}", "content-type": "application/json",
         "mercat-tag": "env=prod, team=research"},
    )  # fmt: skip
    urllib.request.urlopen(asked, timeout=10).read()
    client = triton.InferenceServerClient(platform.grpc)
    inputs = [triton.InferInput(name, [2], "INT64") for name in ("a", "b")]
    for one in inputs:
        one.set_data_from_numpy(np.arange(2, dtype=np.int64))
    headers = {"authorization": f"Bearer {person.api_key}", "mercat-tag": "team=research,env=prod"}
    client.infer(model, inputs, headers=headers)
    platform.command(
        "infer", model, "--input", "a=[1, 2]", "--input", "b=[1, 2]", "--tag", "team=research", "--tag", "env=prod",
        MERCAT_API_KEY=person.api_key,
    )  # fmt: skip
    person.inference.Predict(_request(model))
    seen = _recorded(person, 7)
    assert seen.count(wanted) == 6
    assert seen.count({}) == 1
    asked = ("usage", "query", "--meter", "cost_nanos", "--by", "model,tag:team", "--bucket", "month")
    table = platform.command(*asked, MERCAT_API_KEY=person.api_key)
    assert table.returncode == 0, table.stderr
    for text in (model, "team=research", "0.006 USD", "0.001 USD", "█"):
        assert text in table.stdout
    points = json.loads(platform.command(*asked, "--json", MERCAT_API_KEY=person.api_key).stdout)["points"]
    assert [(p["tag"], p["value"]) for p in points] == [("team=research", "6000000"), ("", "1000000")]
    one = platform.command("usage", "--json", "--limit", "1", MERCAT_API_KEY=person.api_key)
    request_id = json.loads(one.stdout)["records"][0]["requestId"]
    assert request_id in platform.command("usage", request_id, "--json", MERCAT_API_KEY=person.api_key).stdout
    assert platform.command("usage", "query", "--by", "colour", MERCAT_API_KEY=person.api_key).returncode == 2
    assert not any(_recorded(publisher, 7, usage_pb2.USAGE_VIEW_PUBLISHER)), "a consumer's tags are their own business"


def test_a_malformed_tag_is_named_and_the_call_is_free(platform: Platform, model: str) -> None:
    person = platform.sign_up(credit=USD)
    with pytest.raises(grpc.RpcError) as refused:
        person.inference.Predict(_request(model), metadata=[("mercat-tag", "Team=x")])
    error = from_rpc_error(refused.value)
    assert (error.reason, [v.field for v in error.violations]) == ("INVALID_FIELDS", ["mercat-tag"])
    # Elsewhere it says nothing: a client may set it on all of its calls.
    person.usage.ListUsage(usage_pb2.ListUsageRequest(), metadata=[("mercat-tag", "Team=x")])
    assert person.balance() == USD
