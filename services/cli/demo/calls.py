"""First calls to paste into a shell, in several ways."""

import json
import sys

from services.embedded.connection import Connection

_HELLO = [101, 7592, 2088, 102]  # "hello world" in MiniLM's vocabulary

_PYTHON = """\
{python} - <<'END'
import grpc, json
from mercat.inference.v1 import inference_pb2 as inference, inference_pb2_grpc
from mercat.registry.v1 import registry_pb2 as registry, registry_pb2_grpc
channel, key = grpc.insecure_channel("{grpc}"), [("authorization", "Bearer {key}")]
data = open(json.__file__, "rb").read().strip()  # a file of Python's own
head, tail = [*data[:1024]], [*data[-1024:]]
row = head + [256] * (1024 - len(head)) + [256] * (1024 - len(tail)) + tail
file = inference.Tensor(name="bytes", datatype="INT32", shape=[1, 2048])
file.data.extend(row)
answer = inference_pb2_grpc.InferenceServiceStub(channel).Predict(
    inference.PredictRequest(model="mercat/magika", inputs=[file]), metadata=key)
version = registry_pb2_grpc.RegistryServiceStub(channel).GetVersion(
    registry.GetVersionRequest(model=answer.model, version=answer.version)).version
scores = list(answer.outputs[0].data)
best = max(range(len(scores)), key=scores.__getitem__)
print(version.labels["target_label"].names[best], scores[best], "for", answer.cost_nanos / 1e9, "USD")
END"""

_TRITON = """\
{python} - <<'END'
import numpy, tritonclient.grpc as triton
client, key = triton.InferenceServerClient("{grpc}"), {{"authorization": "Bearer {key}"}}
def tensor(name, values):
    made = triton.InferInput(name, [1, len(values)], "INT64")
    made.set_data_from_numpy(numpy.array([values]))
    return made
inputs = [tensor("input_ids", {hello}), tensor("attention_mask", [1] * 4), tensor("token_type_ids", [0] * 4)]
hidden = client.infer("mercat/minilm", inputs, headers=key).as_numpy("last_hidden_state")
print("hello world:", hidden.mean(1)[0, :5], "…")
END"""


def calls(connection: Connection) -> list[tuple[str, str]]:
    """Titles and what to paste; nothing before there are models."""
    if not connection.complete:
        return []
    key = connection.accounts["consumer"].api_key
    rows = {"input_ids": _HELLO, "attention_mask": [1] * 4, "token_type_ids": [0] * 4}
    inputs = [{"name": n, "datatype": "INT64", "shape": [1, 4], "data": values} for n, values in rows.items()]
    body = json.dumps({"inputs": inputs})
    message = json.dumps({"model": "mercat/minilm", "inputs": inputs})
    filled = {"python": sys.executable, "grpc": connection.grpc, "key": key, "hello": _HELLO}
    quote = (
        f"grpcurl -plaintext -H 'authorization: Bearer {key}' -d '{message}' \\\n"
        f"  {connection.grpc} mercat.inference.v1.InferenceService/Quote"
    )
    predict = (
        f"curl -s {connection.rest}/v1/models/mercat/minilm:predict -H 'authorization: Bearer {key}' \\\n"
        f"  -H 'content-type: application/json' -d '{body}' | head -c 500"
    )
    said = json.dumps({
        "model": "mercat/smollm2", "stream": True, "max_tokens": 40,
        "messages": [{"role": "user", "content": "Say hello to a new friend."}],
    })  # fmt: skip
    chat = (
        f"curl -sN {connection.rest}/openai/v1/chat/completions -H 'authorization: Bearer {key}' \\\n"
        f"  -H 'content-type: application/json' -d '{said}'"
    )
    return [
        ("A chat, token by token, by curl as with OpenAI", chat),
        ("What a call would cost, by grpcurl", quote),
        ("A sentence as a vector, by curl", predict),
        ("What kind of file is it, by Python", _PYTHON.format(**filled)),
        ("A sentence as a vector, by tritonclient", _TRITON.format(**filled)),
    ]
