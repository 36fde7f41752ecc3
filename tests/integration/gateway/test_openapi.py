"""Whatever the OpenAPI document allows, and some of what it does not, is answered as the document says: by
schemathesis, which nobody here wrote, on a running platform."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from tests.platform import USD, Platform

# Of each operation: those that are always the same, and with MERCAT_EXAMPLES so many others.
EXAMPLES = int(os.environ.get("MERCAT_EXAMPLES", "6"))
CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]
DOCUMENT: dict[str, Any] = json.loads((Path(__file__).parents[3] / "gen" / "openapi" / "mercat.json").read_text())
# They wait for what comes, and end with whoever listens.
ENDLESS = ["/v1/usage:stream", "/v1/jobs/{job_id}:watch"]

schema = schemathesis.openapi.from_dict(DOCUMENT)
schema.config.phases.update(phases=["examples", "fuzzing"])  # or each operation would be hundreds of cases
api = schema.exclude(path=ENDLESS)


@pytest.fixture(scope="module")
def credentials(platform: Platform) -> dict[bool, list[tuple[str, str]]]:
    """By whether they are an administrator's. Nobody else's account is touched."""
    person = platform.publisher()
    person.top_up(100 * USD)
    return {False: person.metadata, True: platform.admin().metadata}


@api.parametrize()
@settings(
    max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck),
    derandomize="MERCAT_EXAMPLES" not in os.environ, database=None,
)  # fmt: skip
def test_answers_are_as_documented(
    case: Any, platform: Platform, credentials: dict[bool, list[tuple[str, str]]]
) -> None:
    policy = case.operation.definition.raw.get("x-mercat-policy", {})
    headers = dict(credentials["admin" in policy.get("roles", [])])
    response = case.call(base_url=platform.rest, headers=headers, timeout=30)
    case.validate_response(response, checks=CHECKS)
