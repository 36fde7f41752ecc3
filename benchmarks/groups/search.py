"""A search among 100,000 models in one process, and how well it finds."""

from benchmarks import search
from benchmarks.measure import Figure, Result
from benchmarks.search import FACETED, FLOOR, HYBRID, MEANING, SEARCH
from benchmarks.stage import Options, Stage

TITLE = "Search among 100,000 models"
_MODELS, _QUERIES = 100_000, 1_000


def seconds(options: Options) -> float:
    return 60


def run(stage: Stage) -> Result:
    found = search.measure(_MODELS, _QUERIES, stage.tell)
    result = Result("search", TITLE)
    result.figures = [
        Figure("index of 100,000 models", [found.build_seconds], 60, "s", at_most=True),
        Figure("p99 of a search", [found.quantile(SEARCH, 0.99)], 10, "ms", at_most=True),
        Figure("nDCG@10 of words and meaning ÷ tantivy's own parser", [found.ndcg[HYBRID] / found.ndcg[FLOOR]], 1.2),
    ]
    for side in (SEARCH, FACETED, FLOOR):
        p50, p99 = (found.quantile(side, share) for share in (0.5, 0.99))
        result.notes.append(f"{side}: p50 {p50:.2f} ms, p99 {p99:.2f} ms, {_QUERIES:,} queries")
    judged = ", ".join(f"{side} {found.ndcg[side]:.3f}" for side in (SEARCH, MEANING, HYBRID, FLOOR))
    result.notes.append(f"nDCG@10 of judged queries: {judged}; the index takes {found.megabytes:.0f} MB")
    return result
