"""What each group found last, in results.json: RESULTS.md and its picture are made of it."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.measure import Figure, Result, Row

RESULTS = Path(__file__).with_name("results.json")


@dataclass(frozen=True)
class Run:
    """One run: the command, when it ended (UTC), how long it took, where and with what it was made, and what the books
    said in the end."""

    command: str
    when: str
    took: str
    machine: Mapping[str, str]
    money: Sequence[str]


@dataclass(frozen=True)
class Kept:
    """What a group found, and in which run."""

    result: Result
    run: Run


def load(path: Path = RESULTS) -> dict[str, Kept]:
    """By group. Empty where nothing was kept yet."""
    if not path.exists():
        return {}
    document = json.loads(path.read_text(encoding="utf-8"))
    return {
        name: Kept(_result(one["result"]), Run(**document["runs"][one["run"]]))
        for name, one in document["groups"].items()
    }


def save(kept: Mapping[str, Kept], path: Path = RESULTS) -> None:
    """Each run once, however many groups it measured."""
    runs: list[Run] = []
    groups = {}
    for name, one in kept.items():
        if one.run not in runs:
            runs.append(one.run)
        groups[name] = {"run": runs.index(one.run), "result": asdict(one.result)}
    document = {"runs": [asdict(run) for run in runs], "groups": groups}
    path.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def _result(plain: dict) -> Result:
    rows = [Row(**row) for row in plain.pop("rows")]
    figures = [Figure(**figure) for figure in plain.pop("figures")]
    curves = {name: [(x, y) for x, y in points] for name, points in plain.pop("curves").items()}
    return Result(rows=rows, figures=figures, curves=curves, **plain)
