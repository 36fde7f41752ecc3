"""What a run writes."""

import json
from pathlib import Path

from benchmarks import kept, report
from benchmarks.kept import Kept, Run
from benchmarks.measure import Figure, Result, Row

FOUND = Result(
    "tiny", "A tiny model",
    [Row("through Envoy", 4321.4, 4000, 4500, 12.5, 20, 3, {"worker-0": 123.4, "gateway": 0.1})],
    [Figure("faster", [2.0, 2.5, 2.2], 2, aim=3), Figure("added", [1.8], 1.5, "ms", at_most=True)],
    ["Triton was left out"], {"worker-0": [(10_000, 70.0)]},
)  # fmt: skip


RUN = Run("make bench", "today", "a minute", {"processor": "a fast one"}, ["all charged"])


def markdown(*missing: str) -> str:
    return report.markdown({"tiny": Kept(FOUND, RUN)}, missing, "results.png")


def test_results_tell_value_reach_and_spread() -> None:
    text = markdown()
    assert "| faster | 2.20 | ≥ 2, aim 3 | yes | 2.00 to 2.50 in 3 rounds | today |" in text
    assert "| added | 1.80 ms | ≤ 1.5 ms | **no** | once | today |" in text
    assert "| through Envoy | 4,321 | 4,000 – 4,500 | 12.50 | 20.00 | 3 |" in text
    for said in ("`make bench`", "all charged", "a fast one", "Triton was left out", "results.png"):
        assert said in text


def test_results_tell_what_was_not_measured() -> None:
    assert "`rest` was not measured" in markdown("rest")


def test_what_is_kept_comes_back(tmp_path: Path) -> None:
    later = Run("make bench B=rest", "tomorrow", "a minute", {"processor": "a slow one"}, ["all charged"])
    found = {"tiny": Kept(FOUND, RUN), "rest": Kept(Result("rest", "REST"), later)}
    kept.save(found, tmp_path / "results.json")
    again = kept.load(tmp_path / "results.json")
    assert again == found
    text = report.markdown(again, (), "")
    assert text.index("### today") < text.index("a fast one") < text.index("### tomorrow") < text.index("a slow one")
    assert kept.load(tmp_path / "none.json") == {}


def test_the_terminal_shows_the_same() -> None:
    assert "4,321" in report.table(FOUND.rows)
    assert report.figures(FOUND.figures).splitlines()[1].startswith("✗ added: 1.80 ms (reach ≤ 1.5 ms")
    said = report.time_table(FOUND.rows)
    assert "worker-0 123" in said
    assert "gateway" not in said  # next to nothing


def test_the_picture_is_drawn_from_plain_json() -> None:
    plain = json.loads(json.dumps(report.plain([FOUND])))["results"][0]
    assert plain["figures"][0]["of_reach"] == 1.1
    assert plain["curves"]["worker-0"] == [[10_000, 70.0]]
