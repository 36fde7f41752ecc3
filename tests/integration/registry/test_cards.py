"""Cards: front matter becomes fields that are shown and found, what is wrong with it is named, HTML is safe."""

import secrets

import httpx
import pytest
from mercat.marketplace.v1 import marketplace_pb2
from mercat.registry.v1 import card_pb2
from mercat.registry.v1 import registry_pb2 as r

from tests import graphs
from tests.expect import fails, until
from tests.platform import Account, Platform

CARD = """---
license: mit
language: [de, sr-latn]
datasets: [squad]
base_model: someone/base
metrics: [{name: f1, value: 0.5, dataset: squad}]
---
# Hello

<script>alert(1)</script>

[click](javascript:alert(1)) **bold**
"""


@pytest.fixture(scope="module")
def maker(platform: Platform) -> Account:
    return platform.publisher()


def new(**said: str) -> r.CreateModelRequest:
    about = {"summary": "s", "category": "other", "task": "test", "license": "MIT"} | said
    return r.CreateModelRequest(name=f"c{secrets.token_hex(4)}", **about)  # type: ignore[arg-type]


def card_of(person: Account, model: str, version: str = "") -> card_pb2.Card:
    return person.cards.GetCard(card_pb2.GetCardRequest(model=model, version=version)).card  # type: ignore[no-any-return]


def test_front_matter_is_shown_found_and_kept_apart(platform: Platform, maker: Account) -> None:
    model = maker.registry.CreateModel(new(description=CARD)).model
    assert model.card_metadata.license == "MIT"
    assert list(model.card_metadata.languages) == ["de", "sr-Latn"]
    assert model.card_metadata.metrics[0] == card_pb2.CardMetric(name="f1", value=0.5, dataset="squad")
    digest = platform.upload(maker, graphs.tiny())
    platform.validated(maker, model.model, digest)
    platform.through_review(maker, model.model, "1.0.0")
    # A version with a card of its own, which says something else.
    own = "---\nlanguage: fr\nintended_use: Tests.\n---\n# Second\n"
    files = [r.VersionFile(name="README.md", role=r.FILE_ROLE_CARD, digest=platform.upload(maker, own.encode()))]
    maker.registry.CreateVersion(r.CreateVersionRequest(model=model.model, version="2.0.0", digest=digest, files=files))
    second = platform.until_validated(maker, model.model, "2.0.0")
    assert (second.card, second.card_metadata.intended_use) == (own, "Tests.")

    reader = platform.anonymous
    card = card_of(reader, model.model)
    assert (card.version, list(card.metadata.datasets)) == ("", ["squad"])
    assert card.markdown.startswith("# Hello")
    assert "<strong>bold</strong>" in card.html
    assert "<script" not in card.html
    assert "href" not in card.html
    shown = httpx.get(f"{platform.rest}/v1/models/{model.model}/card").json()
    assert (shown["html"], shown["metadata"]["baseModels"]) == (card.html, ["someone/base"])
    assert fails(reader.cards.GetCard, card_pb2.GetCardRequest(model=model.model, version="2.0.0")).reason == (
        "VERSION_NOT_FOUND"
    )
    assert card_of(maker, model.model, "2.0.0").html == "<h1>Second</h1>\n"
    assert card_of(maker, model.model, "1.0.0").html == ""

    def found(language: str) -> list[str]:
        asked = marketplace_pb2.SearchModelsRequest(language=language, publisher=model.model.partition("/")[0])
        return [hit.model for hit in reader.marketplace.SearchModels(asked).hits]

    until(lambda: found("de") == [model.model])
    assert found("sr") == found("sr-Latn") == [model.model]
    assert found("fr") == []
    listing = reader.marketplace.GetListing(marketplace_pb2.GetListingRequest(model=model.model)).listing
    assert listing.model.card_metadata == model.card_metadata
    platform.through_review(maker, model.model, "2.0.0")
    until(lambda: found("fr") == [model.model])
    assert card_of(reader, model.model).version == "2.0.0"


def test_what_is_wrong_with_it_is_named(platform: Platform, maker: Account) -> None:
    refused = fails(maker.registry.CreateModel, new(description="---\nlicense: nonsense\nlanguage: [en, xx]\n---\n"))
    assert refused.reason == "CARD_INVALID"
    assert [v.field for v in refused.violations] == ["description.license", "description.language[1]"]
    refused = fails(maker.registry.CreateModel, new(description="---\nlicense: Apache-2.0\n---\n"))
    assert [v.field for v in refused.violations] == ["description.license"]
    model = maker.registry.CreateModel(new()).model.model
    bomb = "---\na: &a [x, x]\nb: [*a, *a]\n---\n"
    refused = fails(maker.registry.UpdateModel, r.UpdateModelRequest(model=model, description=bomb))
    assert "line 3: aliases" in refused.violations[0].description
    digest, card = platform.upload(maker, graphs.tiny()), platform.upload(maker, b"---\nmetrics: [{value: 1}]\n---\n")
    files = [r.VersionFile(name="c.md", role=r.FILE_ROLE_CARD, digest=card)]
    asked = r.CreateVersionRequest(model=model, version="1.0.0", digest=digest, files=files)
    refused = fails(maker.registry.CreateVersion, asked)
    assert (refused.reason, refused.violations[0].field) == ("CARD_INVALID", "files[0].card.metrics[0].name")


def test_a_new_card_brings_its_licence_and_takes_what_the_old_one_said(maker: Account) -> None:
    model = maker.registry.CreateModel(new(description=CARD)).model.model
    asked = r.UpdateModelRequest(model=model, description="---\nlicense: apache-2.0\n---\n# New\n")
    changed = maker.registry.UpdateModel(asked).model
    assert (changed.license, list(changed.card_metadata.languages)) == ("Apache-2.0", [])
    changed = maker.registry.UpdateModel(r.UpdateModelRequest(model=model, summary="t")).model
    assert (changed.license, changed.card_metadata.license) == ("Apache-2.0", "Apache-2.0")
    changed = maker.registry.UpdateModel(r.UpdateModelRequest(model=model, description="# Plain")).model
    assert (changed.license, changed.HasField("card_metadata")) == ("Apache-2.0", False)
