"""`GET /models`: the published models that this dialect can call."""

from __future__ import annotations

import re
from typing import Any

from mercat.registry.v1 import registry_pb2
from starlette.responses import Response

from gateway_rest import replies
from gateway_rest.openai.calls import Call
from gateway_rest.openai.errors import Invalid
from gateway_rest.transcode import dumps

_SERVICE = "/mercat.registry.v1.RegistryService/"
TASKS = {"text-generation", "text-embedding"}
PARAMS = {"version": "model"}
_CALLED = {registry_pb2.VERSION_STATE_PUBLISHED, registry_pb2.VERSION_STATE_DEPRECATED}


def _shown(model: registry_pb2.Model, name: str = "") -> dict[str, Any]:
    return {
        "id": name or model.model,
        "object": "model",
        "created": (model.published_at if model.HasField("published_at") else model.created_at).seconds,
        "owned_by": model.model.partition("/")[0],
    }


async def models(call: Call) -> Response:
    found: list[dict[str, Any]] = []
    token = ""
    while True:
        request = registry_pb2.ListModelsRequest(page_size=1000, page_token=token)
        page, headers = await call.ask(_SERVICE + "ListModels", request, registry_pb2.ListModelsResponse)
        found += [_shown(model) for model in page.models if model.task in TASKS and model.latest_version]
        token = page.next_page_token
        if not token:
            break
    return Response(dumps({"object": "list", "data": found}), headers=headers, media_type=replies.JSON)


async def model(call: Call) -> Response:
    name = str(call.request.path_params["model"])
    base = re.split("[@:]", name, maxsplit=1)[0]
    sign, rest = name[len(base) :][:1], name[len(base) + 1 :]
    request = registry_pb2.GetModelRequest(model=base)
    got, headers = await call.ask(_SERVICE + "GetModel", request, registry_pb2.GetModelResponse)
    if got.model.task not in TASKS or not got.model.latest_version:
        raise _none(name)
    if sign == ":" and rest not in got.model.aliases:
        raise _none(name)
    if sign == "@":
        wanted = registry_pb2.GetVersionRequest(model=base, version=rest)
        version, _ = await call.ask(_SERVICE + "GetVersion", wanted, registry_pb2.GetVersionResponse)
        if version.version.state not in _CALLED:
            raise _none(name)
    return Response(dumps(_shown(got.model, name)), headers=headers, media_type=replies.JSON)


def _none(name: str) -> Invalid:
    return Invalid(f"The model '{name}' does not exist or is no text model.", "model", "model_not_found", 404)
