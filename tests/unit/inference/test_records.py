"""Records made of parts say the same as records made whole."""

from hypothesis import given
from hypothesis import strategies as st
from mercat.auth.v1 import auth_pb2
from mercat.event.v1 import event_pb2
from mercat.registry.v1 import registry_pb2

from services.common import ids
from services.common.pricing import Rated, rated_of
from services.common.rpc.context import Call
from services.common.tensors import Signature
from services.inference import records
from services.inference.breaker import Breaker
from services.inference.deployments import Deployment
from services.inference.telemetry import Figures

text = st.text(max_size=300)
tags = st.dictionaries(st.text(max_size=9), text, max_size=3)


@given(st.lists(st.tuples(text, text, st.integers(0, 2**62), st.integers(0, 2**40), st.booleans(), tags), max_size=20))
def test_a_batch_of_records_reads_back_as_they_were(calls):
    made, whole = records.Records("here"), []
    for model, key, cost, latency, test, tags in calls:
        request_id = ids.new("req")
        principal = auth_pb2.Principal(user_id="usr", org_id="org", key_id=key, test=test)
        call = Call(request_id, "/m", ids.milliseconds(request_id), principal, tags=tuple(tags.items()))
        proto = registry_pb2.Deployment(model=model, version="1.0.0", model_id="mdl", org_id="org_2", version_id=model)
        signature = Signature(proto.signature)
        figures = Figures("test/records", "1.0.0")
        d = Deployment(0.0, model, "1.0.0", proto, signature, "prc", (), "USD", 0, 1.0, figures, Breaker(), "", 0, 0)
        d.measured = latency % 3 == 0
        rated = Rated({"rows": latency} if latency else {}, cost % 5) if cost % 2 else None
        whole.append(made.make(call, d, (("requests", 1), ("rows", cost % 7)), cost, "lse", latency, rated))
    batch = event_pb2.UsageBatch.FromString(records.batch(whole, "wrk_1"))
    assert batch.worker_id == "wrk_1"
    assert [(r.model, r.key_id, r.cost_nanos, r.latency_us, r.test, dict(r.tags)) for r in batch.records] == calls
    for r in batch.records:
        assert r.timestamp.ToMilliseconds() == ids.milliseconds(r.request_id)
        assert r.units["requests"] == 1
        assert r.units["rows"] == r.cost_nanos % 7
        assert r.HasField("rating") == r.cost_nanos % 2
        assert not r.HasField("rating") or rated_of(r.rating) == (
            {"rows": r.latency_us} if r.latency_us else {}, r.cost_nanos % 5, None,
        )  # fmt: skip
