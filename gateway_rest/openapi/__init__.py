"""The OpenAPI 3.1 document of the REST surface, made from the contracts: their bindings, policies, rules and comments.

`python -m gateway_rest.openapi IMAGE OUT` writes it as JSON; IMAGE is a descriptor set with source locations.
"""

from __future__ import annotations

from typing import Any

from google.protobuf.descriptor_pb2 import FileDescriptorSet

from gateway_rest import contracts
from gateway_rest.openapi import comments as comments_module
from gateway_rest.openapi.operations import Operations, path
from gateway_rest.openapi.schemas import Schemas

DESCRIPTION = """\
The REST face of Mercat's gRPC contracts.

- Authenticate with `Authorization: Bearer KEY`, an API key (`mk_live_…`, `mk_test_…`) or an access token.
- 64-bit integers are JSON strings, bytes are base64, times are RFC 3339 in UTC, money is in nano-units of a currency
  (1 USD = 1000000000). Field names are accepted in camelCase and as written in the contracts.
- Errors have one shape everywhere (`Error`); `details` carry a stable `reason`.
- A request that changes something honours `Idempotency-Key`: the same key and body answers the first result again.
"""

ERROR = {
    "type": "object",
    "description": "What went wrong (google.aip.dev/193).",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["code", "message", "status"],
            "properties": {
                "code": {"type": "integer", "description": "The HTTP status."},
                "message": {"type": "string", "description": "For a person."},
                "status": {"type": "string", "description": "The canonical code, such as NOT_FOUND."},
                "details": {
                    "type": "array",
                    "description": "google.rpc details, such as ErrorInfo with its stable `reason`, BadRequest with "
                    "the fields in question, RetryInfo.",
                    "items": {
                        "type": "object",
                        "required": ["@type"],
                        "properties": {"@type": {"type": "string"}},
                        "additionalProperties": True,
                    },
                },
            },
        }
    },
}

COMPONENTS: dict[str, Any] = {
    "securitySchemes": {
        "bearer": {"type": "http", "scheme": "bearer", "description": "An API key or an access token."}
    },
    "parameters": {
        "IdempotencyKey": {
            "name": "idempotency-key",
            "in": "header",
            "required": False,
            "description": "The same key and body answers the first result again, for 24 hours; the same key with "
            "another body is refused.",
            "schema": {"type": "string", "minLength": 1, "maxLength": 255},
        },
        "Tag": {
            "name": "mercat-tag",
            "in": "header",
            "required": False,
            "description": "Tells the call apart in the caller's usage: up to 8 pairs, `team=research, env=prod`.",
            "schema": {"type": "string", "maxLength": 1000},
        },
    },
    "headers": {
        "RequestId": {"description": "Names this call, also in usage and logs.", "schema": {"type": "string"}},
        "CostNanos": {
            "description": "What the call cost, in nano-units.",
            "schema": {"type": "string", "format": "int64"},
        },
        "ModelVersion": {"description": "The version that answered.", "schema": {"type": "string"}},
    },
    "responses": {
        "Error": {
            "description": "Refused or failed.",
            "headers": {"mercat-request-id": {"$ref": "#/components/headers/RequestId"}},
            "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}},
        }
    },
}


def document(image: FileDescriptorSet) -> dict[str, Any]:
    """`image` must hold the very contracts that are imported as `mercat`, with their source locations."""
    texts = comments_module.read(image)
    schemas = Schemas(texts)
    operations = Operations(schemas, texts)
    paths: dict[str, dict[str, Any]] = {}
    seen: dict[str, int] = {}
    for binding in contracts.bindings():
        number = seen.get(binding.method.full_name, 0)
        seen[binding.method.full_name] = number + 1
        paths.setdefault(path(binding)[0], {})[binding.verb.lower()] = operations.make(binding, number)
    services = {binding.method.containing_service for binding in contracts.bindings()}
    tags = [
        {"name": service.name, "description": texts.get(service.full_name, service.name)}
        for service in sorted(services, key=lambda service: service.full_name)
    ]
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Mercat",
            "version": "1",
            "description": DESCRIPTION,
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "security": [{"bearer": []}],
        "tags": tags,
        "paths": {name: paths[name] for name in sorted(paths)},
        "components": {
            **COMPONENTS,
            "schemas": {**dict(sorted(schemas.components.items())), "Error": ERROR},
        },
    }
