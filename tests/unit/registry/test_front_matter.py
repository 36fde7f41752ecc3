"""Front matter of cards: what it says becomes fields, what is wrong is named."""

import pytest
from mercat.registry.v1 import card_pb2

from services.registry.cards.front_matter import CardInvalid, read, split

# As cards on the Hugging Face Hub begin (https://huggingface.co/docs/hub/model-cards), with keys that are not Mercat's.
WHOLE = """---
language:
- en
- pt-br
license: apache-2.0 or mit
tags: [sentence-similarity]
pipeline_tag: sentence-similarity
datasets: [s2orc, ms_marco]
base_model: nreimers/MiniLM-L6-H384-uncased
intended_use: |
  Embeds sentences.
metrics:
- accuracy
- {name: spearman, value: 82.4, dataset: stsb}
- {type: f1, value: "0.5"}
---

# A model
"""


def metric(name: str, value: float | None = None, dataset: str = "") -> card_pb2.CardMetric:
    return card_pb2.CardMetric(name=name, value=value, dataset=dataset)


def test_what_it_says_becomes_fields() -> None:
    assert read(WHOLE, "card") == card_pb2.CardMetadata(
        license="Apache-2.0 OR MIT", languages=["en", "pt-BR"], datasets=["s2orc", "ms_marco"],
        base_models=["nreimers/MiniLM-L6-H384-uncased"], intended_use="Embeds sentences.",
        metrics=[metric("accuracy"), metric("spearman", 82.4, "stsb"), metric("f1", 0.5)],
    )  # fmt: skip
    assert split(WHOLE)[1] == "\n# A model\n"


def test_one_alone_is_a_list_of_one() -> None:
    assert read("---\nmetrics: {name: a}\n---\n", "card") == card_pb2.CardMetadata(metrics=[metric("a")])


def test_norwegian_is_a_language() -> None:
    said = read("---\nlanguage: no\n---\n", "card")
    assert said is not None
    assert list(said.languages) == ["no"]


@pytest.mark.parametrize("text", ["", "# Plain", "---\nno end", "text\n---\nlicense: nonsense\n---\n", "---\n---\n# x"])
def test_a_card_need_not_have_any(text: str) -> None:
    assert read(text, "card") is None


@pytest.mark.parametrize("text", ["---\r\nlicense: MIT\r\n---\r\n# x", "\ufeff---\nlicense: MIT\n...\n# x"])
def test_lines_may_end_as_on_windows(text: str) -> None:
    said = read(text, "card")
    assert said is not None
    assert (said.license, split(text)[1]) == ("MIT", "# x")


@pytest.mark.parametrize(
    ("front", "field", "why"),
    [
        ("license: other", "card.license", "SPDX"),
        ("license: [MIT]", "card.license", "a text"),
        ("license: " + "MIT AND " * 20 + "MIT", "card.license", "at most 100"),
        ("language: english", "card.language", "BCP 47"),
        ("language: [en, zz]", "card.language[1]", "BCP 47"),
        ("languages: [multilingual]", "card.languages[0]", "mul"),
        ("datasets: [{a: b}]", "card.datasets[0]", "a text"),
        (f"datasets: [{', '.join(['d'] * 101)}]", "card.datasets", "at most 100"),
        ("base_model: " + "x" * 201, "card.base_model", "at most 200"),
        ("intended_use: " + "x" * 5001, "card.intended_use", "at most 5,000"),
        ("metrics: [{value: 1}]", "card.metrics[0].name", "a text"),
        ("metrics: [{name: a, value: high}]", "card.metrics[0].value", "a number"),
        ("metrics: [{name: a, value: nan}]", "card.metrics[0].value", "a number"),
        ("metrics: [{name: a, value: [1]}]", "card.metrics[0].value", "a number"),
        ("metrics: [[a]]", "card.metrics[0]", "a name"),
        ("license: MIT\nlicense: MIT", "card", "given twice"),
        ("a: &a [x]\nb: *a", "card", "line 3: aliases"),
    ],
)
def test_what_is_wrong_is_named(front: str, field: str, why: str) -> None:
    with pytest.raises(CardInvalid) as caught:
        read(f"---\n{front}\n---\n# x", "card")
    assert caught.value.reason == "CARD_INVALID"
    assert [v.field for v in caught.value.violations] == [field]
    assert why in caught.value.violations[0].description


def test_all_that_is_wrong_is_named_at_once() -> None:
    with pytest.raises(CardInvalid) as caught:
        read("---\nlicense: x y\nlanguage: [en, '?']\nmetrics: [{}]\n---", "description")
    assert [v.field for v in caught.value.violations] == [
        "description.license", "description.language[1]", "description.metrics[0].name"
    ]  # fmt: skip
