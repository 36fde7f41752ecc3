"""Models and queries of which people said what should be found, and how a ranking does by that.

`models.tsv`: name, title, task, tags, summary. `queries.tsv`: a query, and the models that answer it with how well they
do, 1 to 3."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from mercat.marketplace.v1 import marketplace_pb2
from mercat.registry.v1 import registry_pb2

_HERE = Path(__file__).parent


def listings(publisher: str) -> list[marketplace_pb2.Listing]:
    """The models, as one publisher's."""
    found = []
    for line in (_HERE / "models.tsv").read_text(encoding="utf-8").splitlines():
        name, title, task, tags, summary = line.split("\t")
        model = registry_pb2.Model(
            model=f"{publisher}/{name}", display_name=title, task=task, tags=tags.split(","), summary=summary,
            category="other", license="MIT",
        )  # fmt: skip
        found.append(marketplace_pb2.Listing(model=model, version=registry_pb2.Version(framework="onnx")))
    return found


def queries(publisher: str) -> dict[str, dict[str, int]]:
    """What answers each query, and how well."""
    found = {}
    for line in (_HERE / "queries.tsv").read_text(encoding="utf-8").splitlines():
        query, _, answers = line.partition("\t")
        pairs = (answer.split(":") for answer in answers.split(","))
        found[query] = {f"{publisher}/{name}": int(grade) for name, grade in pairs}
    return found


def ndcg(names: Sequence[str], grades: Mapping[str, int], at: int = 10) -> float:
    """Discounted gain of a ranking by the best one's, of its first places (Järvelin and Kekäläinen 2002)."""
    gains = [2 ** grades.get(name, 0) - 1 for name in names[:at]]
    best = [2**grade - 1 for grade in sorted(grades.values(), reverse=True)[:at]]
    return _discounted(gains) / _discounted(best)


def _discounted(gains: Sequence[int]) -> float:
    return sum(gain / math.log2(place + 1) for place, gain in enumerate(gains, 1))
