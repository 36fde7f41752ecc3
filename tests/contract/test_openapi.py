"""The OpenAPI document says what the contracts say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator

from gateway_rest import contracts

DOCUMENT = Path(__file__).parents[2] / "gen" / "openapi" / "mercat.json"


@pytest.fixture(scope="module")
def document() -> Any:
    return json.loads(DOCUMENT.read_text(encoding="utf-8"))


def test_document_is_openapi_3_1(document: Any) -> None:
    assert document["openapi"].startswith("3.1.")
    OpenAPIV31SpecValidator(document).validate()


def operations(document: Any) -> dict[str, Any]:
    return {
        operation["x-grpc-method"]: operation | {"path": path, "verb": verb}
        for path, item in document["paths"].items()
        for verb, operation in item.items()
    }


def test_every_binding_is_an_operation(document: Any) -> None:
    assert set(operations(document)) == {binding.name for binding in contracts.bindings()}


def test_path_parameters_are_declared(document: Any) -> None:
    for operation in operations(document).values():
        declared = {p["name"] for p in operation.get("parameters", []) if p.get("in") == "path"}
        assert all("{" + name + "}" in operation["path"] for name in declared)
        assert operation["path"].count("{") == len(declared)


def test_operation_tells_its_policy(document: Any) -> None:
    predict = operations(document)["/mercat.inference.v1.InferenceService/Predict"]
    assert (predict["path"], predict["verb"]) == ("/v1/models/{publisher}/{name}:predict", "post")
    assert "inference:call" in predict["description"]
    assert {"$ref": "#/components/parameters/IdempotencyKey"} in predict["parameters"]
    assert "mercat-cost-nanos" in predict["responses"]["200"]["headers"]
    sign_up = operations(document)["/mercat.auth.v1.AuthService/SignUp"]
    assert {} in sign_up["security"]


def test_schemas_are_proto3_json(document: Any) -> None:
    schemas = document["components"]["schemas"]
    tensor = schemas["inference.v1.Tensor"] if "inference.v1.Tensor" in schemas else schemas["Tensor"]
    assert tensor["properties"]["shape"]["items"]["type"] == "string"
    assert tensor["properties"]["raw"]["contentEncoding"] == "base64"
    assert tensor["properties"]["data"]["type"] == "array"
    assert "model" not in schemas["PredictBody"]["properties"]
    assert schemas["SignUpRequest"]["properties"]["email"]["maxLength"] == 254
    assert schemas["Role"]["enum"][0] == "ROLE_UNSPECIFIED"


def test_internal_services_are_not_mentioned(document: Any) -> None:
    text = json.dumps(document)
    for name in ("PrincipalService", "LeaseService", "SettlementService"):
        assert name not in text
