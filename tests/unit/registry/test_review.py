"""What a reviewer is shown of a version."""

from typing import Any

import pytest
from mercat.billing.v1 import billing_pb2
from mercat.common.v1 import tensor_pb2
from mercat.registry.v1 import registry_pb2 as r

from services.registry import review


def version(number: str = "1.0.0", **fields: Any) -> r.Version:
    known: dict[str, Any] = {
        "digest": "sha256:aa", "size_bytes": 1000, "framework": "onnx", "measured_run_us": 1000,
        "state": r.VERSION_STATE_REVIEW, "signature": signature(),
    }  # fmt: skip
    made = r.Version(version=number, **(known | fields))
    made.published_at.FromSeconds(1_000)
    return made


def signature(*inputs: tuple[str, str, list[int]], outputs: str = "y") -> tensor_pb2.Signature:
    spec = tensor_pb2.TensorSpec
    given = inputs or (("x", "FP32", [-1, 4]),)
    return tensor_pb2.Signature(
        inputs=[spec(name=n, datatype=d, shape=s) for n, d, s in given],
        outputs=[spec(name=n, datatype="FP32", shape=[-1, 4]) for n in outputs],
    )


def shown(before: r.Version | None, after: r.Version) -> dict[str, tuple[str, str]]:
    return {c.subject: (c.before, c.after) for c in review.changes(before, after)}


def test_what_is_the_same_is_not_shown() -> None:
    assert shown(version(), version("1.0.1")) == {}
    assert shown(version(), version("1.0.1", release_notes="other words")) == {}


def test_everything_of_a_first_version_is_new() -> None:
    assert shown(None, version()) == {
        "framework": ("", "onnx"), "artifact": ("", "sha256:aa, 1,000 bytes"), "input x": ("", "FP32 [any, 4]"),
        "output y": ("", "FP32 [any, 4]"), "run time": ("", "1.0 ms"),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("before", "after", "subject", "values"),
    [
        ({"digest": "sha256:bb"}, {}, "artifact", ("sha256:bb, 1,000 bytes", "sha256:aa, 1,000 bytes")),
        ({}, {"signature": signature(("x", "INT64", [4]))}, "input x", ("FP32 [any, 4]", "INT64 [4]")),
        ({}, {"signature": signature(outputs="yz")}, "output z", ("", "FP32 [any, 4]")),
        ({}, {"settings": r.InferenceSettings(max_batch_size=8)}, "settings.max_batch_size", ("", "8")),
        ({"settings": r.InferenceSettings(response_cache=r.ResponseCache(ttl_seconds=5))}, {},
         "settings.response_cache.ttl_seconds", ("5", "")),
        ({"files": [r.VersionFile(name="w.bin", digest="sha256:cc", size_bytes=7)]}, {}, "file w.bin",
         ("sha256:cc, 7 bytes", "")),
        ({"scan": r.Scan(operators={"Gemm": 2})}, {"scan": r.Scan(operators={"Gemm": 1})}, "operator Gemm", ("2", "1")),
        ({}, {"measured_memory_bytes": 2**20}, "memory", ("", "1.0 MiB")),
        ({"samples": [r.Sample(title="one", request_json="{}")]}, {}, "sample one", ("{}", "")),
        ({}, {"text": r.TextModel(context_tokens=512)}, "text.context_tokens", ("", "512")),
    ],
)  # fmt: skip
def test_what_differs_is_shown(
    before: dict[str, Any], after: dict[str, Any], subject: str, values: tuple[str, str]
) -> None:
    assert shown(version(**before), version("1.0.1", **after))[subject] == values


def test_cards_are_compared_by_line() -> None:
    old, new = version(card="# A\nsame\n"), version("1.1.0", card="# B\nsame\n")
    assert review.card_diff(old, new).splitlines() == [
        "--- 1.0.0",
        "+++ 1.1.0",
        "@@ -1,2 +1,2 @@",
        "-# A",
        "+# B",
        " same",
    ]
    assert review.card_diff(old, version("1.1.0", card=old.card)) == ""
    assert review.card_diff(None, old).splitlines()[:2] == ["--- nothing", "+++ 1.0.0"]
    assert len(review.card_diff(None, version(card="x\n" * 10**6))) <= 1 << 16


def results(before: r.Version | None, after: r.Version, price: billing_pb2.Price | None = None) -> dict[str, Any]:
    return {c.name: (c.result, c.detail) for c in review.checks(before, after, price)}


@pytest.mark.parametrize(
    ("number", "sign", "problem"),
    [
        ("1.0.1", signature(), ""),
        ("1.1.0", signature(outputs="yz"), ""),  # more is given than before
        ("1.1.0", signature(outputs="z"), "the output y is gone"),
        ("1.1.0", signature(("x", "FP32", [-1, 4]), ("mask", "BOOL", [-1])), "the input mask is new"),
        ("1.1.0", signature(("x", "FP64", [-1, 4])), "the input x is another"),
        ("2.0.0", signature(outputs="z"), ""),
    ],
)
def test_what_breaks_callers_is_said_by_the_number(number: str, sign: tensor_pb2.Signature, problem: str) -> None:
    result, detail = results(version(), version(number, signature=sign))["compatible with the last version"]
    assert result == (r.CHECK_RESULT_WARNING if problem else r.CHECK_RESULT_PASSED)
    assert detail == (f"{problem}, but {number} promises to be compatible" if problem else "")


def test_before_1_0_0_the_second_number_says_it() -> None:
    sign = signature(outputs="z")
    for number, passes in (("0.2.0", True), ("0.1.1", False)):
        result, _ = results(version("0.1.0"), version(number, signature=sign))["compatible with the last version"]
        assert (result == r.CHECK_RESULT_PASSED) == passes


def test_what_a_person_should_look_at() -> None:
    after = version(
        "1.1.0", measured_run_us=1600, scan=r.Scan(operators={"com.microsoft.Gelu": 1, "Gemm": 1}), card="# A",
        samples=[r.Sample(title="one", response_json="{}")],
    )  # fmt: skip
    price = billing_pb2.Price(price_id="prc_1")
    price.effective_at.FromSeconds(1_001)
    found = results(version(), after, price)
    assert {n: d for n, (result, d) in found.items() if result == r.CHECK_RESULT_WARNING} == {
        "as quick as the last version": "run: 1.6 times",
        "operators of the same domains": "new: com.microsoft",
        "has release notes": "none",
        "price as with the last version": "changed since 1.0.0 was published",
    }
    assert results(None, version(), billing_pb2.Price())["priced"][0] == r.CHECK_RESULT_WARNING


def test_samples_have_answered_or_fail() -> None:
    one, two = r.Sample(title="one", response_json='{"outputs": []}'), r.Sample()
    assert results(None, version())["has a sample"][0] == r.CHECK_RESULT_WARNING
    assert results(None, version(samples=[one]))["samples"] == (
        r.CHECK_RESULT_PASSED, "1 run in a sandbox, and answered",
    )  # fmt: skip
    assert results(None, version(samples=[one, two]))["samples"] == (r.CHECK_RESULT_FAILED, "not run: 1")


def test_what_validation_found_has_failed() -> None:
    finding = r.Finding(code="ZIP_TRICK", message="two files of one name", where="a.bin")
    found = results(None, version(findings=[finding], state=r.VERSION_STATE_REFUSED))
    assert found["validation"][0] == r.CHECK_RESULT_FAILED
    assert found["ZIP_TRICK"] == (r.CHECK_RESULT_FAILED, "a.bin: two files of one name")
    assert results(None, version(state=r.VERSION_STATE_VALIDATING))["validation"][0] == r.CHECK_RESULT_WARNING


def test_a_card_of_the_model_is_a_card() -> None:
    for described, result in ((True, r.CHECK_RESULT_PASSED), (False, r.CHECK_RESULT_WARNING)):
        checked = review.checks(None, version(), described=described)
        assert {c.name: c.result for c in checked}["has a card"] == result


def test_a_first_version_without_release_notes_is_said_to_have_none() -> None:
    assert results(None, version())["has release notes"] == (r.CHECK_RESULT_WARNING, "none")
    assert results(None, version(release_notes="the first one"))["has release notes"] == (r.CHECK_RESULT_PASSED, "")
