"""Inputs for a comparison, and the comparison."""

import base64
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from services.registry.validation.frameworks import cases
from services.registry.validation.frameworks.cases import Array, Case, Feeds
from services.registry.validation.frameworks.compare import compare
from services.registry.validation.report import Refused, Tensor


class Sum:
    """A source that adds up an axis of exactly `length`, of any where that is None."""

    def __init__(self, *, datatype: str = "FP32", length: int | None = None) -> None:
        self.inputs = (Tensor("x", datatype, (-1, -1), ("", "")),)
        self.outputs = ("y",)
        self._length = length

    def run(self, feeds: Feeds) -> list[Array]:
        if self._length is not None and feeds["x"].shape[1] != self._length:
            raise ValueError(f"an axis of {self._length} is wanted\nand more")
        return [feeds["x"].sum(1, dtype=feeds["x"].dtype)]

    def export(self, found: "list[Case]", path: Path) -> None:
        raise NotImplementedError


class Session:
    """An ONNX session that gives what it is told, changed."""

    def __init__(self, change: Any) -> None:
        self._change = change

    def run(self, names: list[str], feeds: Feeds) -> list[Array]:
        assert names == ["y"]
        return [self._change(feeds["x"].sum(1, dtype=feeds["x"].dtype))]


def sample(**tensor: Any) -> str:
    return json.dumps({"inputs": [{"name": "x"} | tensor]})


def test_samples_come_first_and_random_ones_grow() -> None:
    raw = base64.b64encode(np.float32([[5, 6, 7]]).tobytes()).decode()
    samples = [sample(data=[[1, 2], [3, 4]]), sample(raw=raw, shape=["1", "3"]), sample(data=[1.0]), "{}", "no JSON"]
    found = cases.cases(Sum(), samples)
    assert [feeds["x"].tolist() for feeds, _ in found[:2]] == [[[1, 2], [3, 4]], [[5, 6, 7]]]
    assert [feeds["x"].shape[0] for feeds, _ in found[2:]] == [2, 3]
    assert all(np.array_equal(feeds["x"].sum(1), given[0]) for feeds, given in found)


def test_lengths_are_tried_until_one_is_taken() -> None:
    assert {feeds["x"].shape[1] for feeds, _ in cases.cases(Sum(length=224), [])} == {224}


def test_a_source_that_takes_nothing_is_refused_with_its_own_words() -> None:
    with pytest.raises(Refused, match="an axis of 7 is wanted; give it a sample"):
        cases.cases(Sum(length=7), [])
    assert len(cases.cases(Sum(length=7), [sample(data=[[1] * 7])])) == 1


def test_texts_are_refused() -> None:
    with pytest.raises(Refused) as refused:
        cases.cases(Sum(datatype="BYTES"), [])
    assert refused.value.finding.code == "DATATYPE_UNSUPPORTED"


def stored(folder: Path, datatype: str = "FP32") -> Path:
    source = Sum(datatype=datatype)
    cases.save(cases.cases(source, []), source.outputs, folder / "cases.npz")
    return folder / "cases.npz"


def test_small_differences_are_measured(tmp_path: Path) -> None:
    assert compare(Session(lambda y: y), stored(tmp_path)) == 0
    assert 0 < compare(Session(lambda y: y + np.float32(5e-5)), stored(tmp_path)) < 1e-4


@pytest.mark.parametrize(
    "change",
    [
        lambda y: y + np.float32(0.1), lambda y: y * np.float32(1.1), lambda y: y.astype(np.float64),
        lambda y: y[:, None], lambda y: y * np.float32(np.nan), lambda y: np.full_like(y, np.inf),
    ],
)  # fmt: skip
def test_other_outputs_are_refused(change: Any, tmp_path: Path) -> None:
    with pytest.raises(Refused) as refused:
        compare(Session(change), stored(tmp_path))
    assert (refused.value.finding.code, refused.value.finding.where) == ("OUTPUTS_DIFFER", "y")


def test_integers_are_equal_or_differ(tmp_path: Path) -> None:
    assert compare(Session(lambda y: y), stored(tmp_path, "INT64")) == 0
    with pytest.raises(Refused, match="other values"):
        compare(Session(lambda y: y + 1), stored(tmp_path, "INT64"))
