"""Samples on a running platform: run in validation, shown with what they gave, asked for on the way to the public."""

import json
from typing import Any

import asyncpg
import pytest
from mercat.marketplace.v1 import marketplace_pb2
from mercat.registry.v1 import registry_pb2 as r

from tests import graphs
from tests.expect import fails, until
from tests.platform import Account, Platform


@pytest.fixture(scope="module")
def maker(platform: Platform) -> Account:
    return platform.publisher()


def sample(title: str = "Five", *index: int, **fields: Any) -> r.Sample:
    body = {"inputs": [{"name": "index", "data": list(index)}]}
    return r.Sample(title=title, request_json=json.dumps(body), **fields)


def made(platform: Platform, maker: Account, name: str, *samples: r.Sample) -> r.Version:
    request = r.CreateModelRequest(name=name, summary="Squares", category="other", task="arithmetic", license="MIT")
    maker.registry.CreateModel(request)
    model = f"{maker.profile.organisation}/{name}"
    return platform.validated(maker, model, platform.upload(maker, graphs.lookup()), samples=samples)


def at(version: r.Version) -> dict[str, str]:
    return {"model": version.model, "version": version.version}


def test_a_version_whose_sample_fails_does_not_get_to_review(platform: Platform, maker: Account) -> None:
    refused = made(platform, maker, "failing", sample("Fine", 2), sample("Too far", 4), sample("Wrong", 1))
    assert refused.state == r.VERSION_STATE_REFUSED
    assert [(f.code, f.where) for f in refused.findings] == [("SAMPLE_RUN_FAILED", "samples[1] Too far")]
    assert "out of data bounds" in refused.findings[0].message
    assert [s.response_json for s in refused.samples] == ["", "", ""]
    assert fails(maker.registry.SubmitVersion, r.SubmitVersionRequest(**at(refused))).reason == "VERSION_STATE"
    assert fails(maker.registry.PublishVersion, r.PublishVersionRequest(**at(refused))).reason == "VERSION_STATE"


def test_what_samples_gave_is_shown_with_the_model(platform: Platform, maker: Account) -> None:
    draft = made(platform, maker, "squares", sample("Two", 2), sample("Others", 0, 3, response_json='{"outputs": []}'))
    assert draft.state == r.VERSION_STATE_DRAFT, draft.findings
    replies = [json.loads(s.response_json)["outputs"][0]["data"] for s in draft.samples]
    assert replies == [[4.0], [0.0, 9.0]], "what the publisher says that it gives is not asked"
    review = maker.registry.GetVersionReview(r.GetVersionReviewRequest(**at(draft))).review
    assert {c.name: c.result for c in review.checks}["samples"] == r.CHECK_RESULT_PASSED
    platform.through_review(maker, draft.model, draft.version)
    search = marketplace_pb2.SearchModelsRequest(publisher=maker.profile.username)
    until(lambda: [h.model for h in platform.anonymous.marketplace.SearchModels(search).hits] == [draft.model])
    listing = marketplace_pb2.GetListingRequest(model=draft.model)
    assert platform.anonymous.marketplace.GetListing(listing).listing.version.samples == draft.samples
    listed = maker.registry.ListVersions(r.ListVersionsRequest(model=draft.model)).versions
    assert [(s.title, s.response_json) for s in listed[0].samples] == [("Two", ""), ("Others", "")]


async def test_samples_that_were_never_run_do_not_get_to_the_public(platform: Platform, maker: Account) -> None:
    """As of versions that were validated before samples were run."""
    early, late = (made(platform, maker, name, sample("Two", 2)) for name in ("early", "late"))
    maker.registry.SubmitVersion(r.SubmitVersionRequest(**at(late)))
    platform.admin().registry.ApproveVersion(r.ApproveVersionRequest(**at(late)))
    connection = await asyncpg.connect(platform.postgres_url())
    try:
        change = "UPDATE registry.versions SET sample_replies = NULL WHERE id IN ($1, $2)"
        with pytest.raises(asyncpg.RaiseError, match="immutable"):
            await connection.execute(change, early.version_id, late.version_id)
        await connection.execute("SET session_replication_role = replica")  # no triggers
        await connection.execute(change, early.version_id, late.version_id)
    finally:
        await connection.close()
    for step, request in (
        (maker.registry.SubmitVersion, r.SubmitVersionRequest(**at(early))),
        (maker.registry.PublishVersion, r.PublishVersionRequest(**at(late))),
    ):
        refused = fails(step, request)
        assert refused.reason == "SAMPLES_NOT_RUN"
        assert "as a new version" in refused.message
    states = {
        maker.registry.GetVersion(r.GetVersionRequest(**at(version))).version.state for version in (early, late)
    }  # fmt: skip
    assert states == {r.VERSION_STATE_DRAFT, r.VERSION_STATE_APPROVED}
    review = maker.registry.GetVersionReview(r.GetVersionReviewRequest(**at(late))).review
    assert {c.name: c.result for c in review.checks}["samples"] == r.CHECK_RESULT_FAILED
