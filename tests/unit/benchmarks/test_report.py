"""What a run writes."""

import json

from benchmarks import report
from benchmarks.measure import Figure, Result, Row

FOUND = Result(
    "tiny", "A tiny model",
    [Row("through Envoy", 4321.4, 4000, 4500, 12.5, 20, 3, {"worker-0": 123.4, "gateway": 0.1})],
    [Figure("faster", [2.0, 2.5, 2.2], 2, aim=3), Figure("added", [1.8], 1.5, "ms", at_most=True)],
    ["Triton was left out"], {"worker-0": [(10_000, 70.0)]},
)  # fmt: skip


def markdown(missing: dict[str, str] | None = None) -> str:
    return report.markdown(
        [FOUND], {"processor": "a fast one"}, command="make bench", when="today", took="a minute",
        missing=missing or {}, money=["all charged"], picture="results.png",
    )  # fmt: skip


def test_results_tell_value_reach_and_spread() -> None:
    text = markdown()
    assert "| faster | 2.20 | ≥ 2, aim 3 | yes | 2.00 to 2.50 in 3 rounds |" in text
    assert "| added | 1.80 ms | ≤ 1.5 ms | **no** | once |" in text
    assert "| through Envoy | 4,321 | 4,000 – 4,500 | 12.50 | 20.00 | 3 |" in text
    for said in ("`make bench`", "all charged", "a fast one", "Triton was left out", "results.png"):
        assert said in text


def test_results_tell_what_was_not_measured() -> None:
    assert "`rest` was not measured: no bombardier" in markdown({"rest": "no bombardier"})


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
