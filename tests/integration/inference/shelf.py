"""Versions in a model repository, written as the registry writes them, for tests of engines without a platform."""

import hashlib
import secrets
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import onnx
from google.protobuf import text_format
from mercat.common.v1 import tensor_pb2
from mercat.registry.v1 import registry_pb2
from tritonclient.grpc import model_config_pb2

from services.common.settings import load
from services.registry.repository import write
from services.registry.settings import RegistrySettings
from services.registry.triton_config import DECODER, ONNX, backend, config, decoder_config, family

_KINDS = {"FLOAT": "FP32", "FLOAT16": "FP16", "DOUBLE": "FP64", "STRING": "BYTES"}


class Shelf:
    """One folder of models."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    async def put(self, graph: bytes, of: bytes | None = None, **more: Any) -> registry_pb2.Deployment:
        """Writes a version whose signature is that of the graph `of`, its own as a rule. `more`: as for `put_form`."""
        return await self.put_form("", graph, signature(of or graph), **more)

    async def put_form(
        self, form: str, data: bytes, takes: tensor_pb2.Signature, *, model_id: str = "", number: int = 1,
        **settings: Any,
    ) -> registry_pb2.Deployment:  # fmt: skip
        """Writes a version of a form, served as its placement among the `settings` says."""
        served = registry_pb2.InferenceSettings(**settings)
        by = backend(form, takes, served)
        digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
        made = registry_pb2.Deployment(
            model_id=model_id or f"mdl_{secrets.token_hex(8)}", version_id=f"ver_{secrets.token_hex(8)}",
            model="ada/model", version=f"{number}.0.0", framework=form or "onnx", size_bytes=len(data), digest=digest,
            signature=takes, settings=served, repository_version=number,
        )  # fmt: skip
        if by != ONNX:
            made.repository_file, made.repository_digest = by[1], digest
        made.repository_model = family(made.model_id, takes, served, by[0])
        made.repository_config = config(made.repository_model, takes, served, load(RegistrySettings), by)
        return await self._written(made, data)

    async def put_decoder(self, graph: bytes, **limits: int) -> registry_pb2.Deployment:
        """Writes a version that goes on with texts; `limits` are those of `services.common.texts.limits`."""
        served = registry_pb2.InferenceSettings()
        made = registry_pb2.Deployment(
            model_id=f"mdl_{secrets.token_hex(8)}", version_id=f"ver_{secrets.token_hex(8)}", model="ada/decoder",
            version="1.0.0", framework="gguf", size_bytes=len(graph), repository_version=1,
            digest=f"sha256:{hashlib.sha256(graph).hexdigest()}",
            text=registry_pb2.TextModel(kind=registry_pb2.TEXT_KIND_DECODER),
        )  # fmt: skip
        made.repository_model = family(made.model_id, made.signature, served, DECODER[0])
        text = decoder_config(made.repository_model, served, load(RegistrySettings))
        said = text_format.Parse(text, model_config_pb2.ModelConfig())
        for name, value in limits.items():
            said.parameters[name].string_value = str(value)
        made.repository_config = text_format.MessageToString(said)
        return await self._written(made, graph)

    async def _written(self, made: registry_pb2.Deployment, graph: bytes) -> registry_pb2.Deployment:
        async def pieces() -> AsyncIterator[bytes]:
            yield graph

        await write(self.folder, made, pieces())
        return made


def signature(graph: bytes) -> tensor_pb2.Signature:
    model = onnx.load_from_string(graph)
    return tensor_pb2.Signature(inputs=map(_spec, model.graph.input), outputs=map(_spec, model.graph.output))


def _spec(value: Any) -> tensor_pb2.TensorSpec:
    tensor = value.type.tensor_type
    kind = onnx.TensorProto.DataType.Name(tensor.elem_type)
    axes = tensor.shape.dim
    return tensor_pb2.TensorSpec(
        name=value.name, datatype=_KINDS.get(kind, kind), axes=[axis.dim_param for axis in axes],
        shape=[axis.dim_value if axis.HasField("dim_value") else -1 for axis in axes],
    )  # fmt: skip
