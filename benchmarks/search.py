"""How long a search takes among many models, and how well it finds, in one process; beside a plain query of tantivy's
own parser, which forgives no typo and knows no beginning.

python -m benchmarks.search --models 100000
"""

import argparse
import random
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean

import numpy as np
import onnxruntime
from mercat.billing.v1 import billing_pb2
from mercat.marketplace.v1 import marketplace_pb2
from mercat.registry.v1 import registry_pb2
from tantivy import Occur, Query
from tokenizers import Tokenizer

from benchmarks import relevance
from services.cli.demo.catalogue import CATALOGUE
from services.common.tensors import Array
from services.inference.text.embedding import pooled
from services.marketplace.cursors import Search, hybrid, lexical, semantic
from services.marketplace.documents import BOOSTS
from services.marketplace.index import Index, Snapshot
from services.marketplace.meaning import CANDIDATES, NEAR, text_of
from services.marketplace.questions import Wanted
from services.marketplace.tasks import TASKS

SEED = 20_240_601
JUDGED = "judged"  # who publishes the models that people judged
_WORDS = """fast small large tiny multilingual english german chinese robust quantized distilled real-time edge mobile
clinical legal retail financial satellite aerial thermal document invoice passport medical radiology speech noisy street
indoor agriculture industrial robotics gaming sports fashion food music wildlife marine weather energy traffic"""
_CONSONANTS, _VOWELS = "b d f g k l m n p r s t v z br tr st ch", "a e i o u ai or en"
_SYLLABLES = [c + v for c in _CONSONANTS.split() for v in _VOWELS.split()]
_DOMAINS = _WORDS.split()
_LICENSES = ["MIT", "Apache-2.0", "BSD-3-Clause", "GPL-3.0-only", "CC-BY-4.0", "OpenRAIL"]
_LIMIT, _PAGE = 10, 20


class Corpus:
    """Models as publishers describe them, always the same ones: titles of domain, task and family, descriptions of
    words that are as unevenly frequent as in a language."""

    def __init__(self, seed: int = SEED) -> None:
        self._random = random.Random(seed)
        made = {"".join(self._random.choices(_SYLLABLES, k=self._random.randint(2, 4))) for _ in range(20_000)}
        self.words = [*_DOMAINS, *sorted(made)]
        self._random.shuffle(self.words)
        self._weights = [1 / (rank + 3) for rank in range(len(self.words))]
        self._families = self._random.sample(sorted(made), 400)

    def listings(self, count: int) -> Iterator[marketplace_pb2.Listing]:
        draw, tasks = self._random, list(TASKS)
        for number in range(count):
            task = draw.choice(tasks)
            domain, family = draw.choice(_DOMAINS), draw.choice(self._families)
            tags = draw.sample(_DOMAINS, draw.randint(1, 5))
            text = draw.choices(self.words, self._weights, k=draw.randint(30, 120))
            model = registry_pb2.Model(
                model=f"pub{number % 5_000}/{family}-{domain}-{number}", category=TASKS[task].category, task=task,
                display_name=f"{family.title()} {domain} {TASKS[task].title}", tags=tags,
                license=draw.choice(_LICENSES),
                summary=f"{TASKS[task].title} for {domain} data: {' '.join(text[:8])}.", description=" ".join(text),
            )  # fmt: skip
            model.published_at.FromSeconds(1_600_000_000 + number * 60)
            price = billing_pb2.PriceComponent(meter="requests", nanos_per_million=draw.choice([0, 1, 5, 50]) * 10**9)
            yield marketplace_pb2.Listing(
                model=model, version=registry_pb2.Version(framework=draw.choice(["onnx", "gguf", "pytorch"])),
                price=billing_pb2.Price(components=[price]), total_requests=int(draw.paretovariate(0.7)),
                weighted_rating=draw.choice([0.0, 0.0, 3.2, 3.9, 4.4]), p50_latency_us=draw.choice([0, 900, 9000]),
            )  # fmt: skip

    def queries(self, count: int) -> list[Wanted]:
        """As people type: one to three words of what models are called by, a third with a typo, a fifth not typed to
        the end, a third with filters, some in another order than by relevance."""
        draw, tasks = self._random, list(TASKS)
        found = []
        for number in range(count):
            words = [
                draw.choice([draw.choice(self._families), draw.choice(_DOMAINS), draw.choice(tasks).replace("-", " ")])
            ]
            words += draw.choices(_DOMAINS, k=draw.randint(0, 2))
            text = " ".join(words)
            if number % 3 == 0:
                at = draw.randrange(len(text) - 1)
                text = text[:at] + text[at + 1] + text[at] + text[at + 2 :]
            if number % 5 == 0:
                text = text[: max(3, len(text) - 2)]
            filters = {"task": [draw.choice(tasks)]} if number % 3 == 1 else {}
            ranges = {"price": (0, 5 * 10**9)} if number % 7 == 1 else {}
            sort = number % 11 + 1 if number % 11 in (1, 2, 3, 4) else 1
            found.append(Wanted(text, filters, sort, ranges))
        return found


@dataclass
class Found:
    """What was measured: seconds, milliseconds by side, nDCG@10 by side."""

    models: int
    build_seconds: float = 0.0
    megabytes: float = 0.0
    took_ms: dict[str, list[float]] = field(default_factory=dict)
    ndcg: dict[str, float] = field(default_factory=dict)

    def quantile(self, side: str, share: float) -> float:
        times = sorted(self.took_ms[side])
        return times[min(len(times) - 1, int(len(times) * share))]


SEARCH, FACETED, FLOOR = "by words", "by words, with facets", "tantivy's own parser"
MEANING, HYBRID = "by meaning", "by words and meaning"


def measure(models: int, queries: int, tell: Callable[[str], None]) -> Found:
    found = Found(models)
    with tempfile.TemporaryDirectory(prefix="mercat-search-") as folder:
        corpus = Corpus()
        listings = [*corpus.listings(models), *relevance.listings(JUDGED)]
        index = Index(Path(folder) / "index")
        began = time.perf_counter()
        index.put(listings, clear=True)
        found.build_seconds = time.perf_counter() - began
        found.megabytes = sum(f.stat().st_size for f in Path(folder).rglob("*") if f.is_file()) / 1e6
        tell(f"{len(listings):,} models indexed in {found.build_seconds:.1f} s, {found.megabytes:.0f} MB")
        snapshot = index.snapshot()
        asked = corpus.queries(queries)
        sides: dict[str, Callable[[Wanted], object]] = {
            SEARCH: lambda w: lexical(snapshot, w).page(0, _PAGE),
            FACETED: lambda w: ((s := lexical(snapshot, w)).page(0, _PAGE), s.facets()),
            FLOOR: lambda w: plain(index, w.words),
        }
        for wanted in asked[:100]:
            for side in sides.values():
                side(wanted)
        for wanted in asked:  # in turn, so that what the machine does beside it meets all alike
            for name, side in sides.items():
                began = time.perf_counter()
                side(wanted)
                found.took_ms.setdefault(name, []).append((time.perf_counter() - began) * 1000)
        found.ndcg = {SEARCH: judge(lambda q: ours(snapshot, q)), FLOOR: judge(lambda q: plain(index, q, JUDGED))}
        found.ndcg |= {name: judge(side) for name, side in by_meaning(snapshot).items()}
    for name in sides:
        tell(f"{name:24} p50 {found.quantile(name, 0.5):6.2f} ms   p99 {found.quantile(name, 0.99):6.2f} ms")
    for name, value in found.ndcg.items():
        tell(f"{name:24} nDCG@{_LIMIT} {value:.3f} on {len(relevance.queries(JUDGED))} judged queries")
    return found


def ours(snapshot: Snapshot, query: str) -> Sequence[str]:
    return lexical(snapshot, Wanted(query, {"publisher": [JUDGED]})).page(0, _LIMIT)


def plain(index: Index, words: str, publisher: str = "") -> Sequence[str]:
    """The floor: every word may be missing, none may be mistyped."""
    raw = index._index  # nothing of ours around it
    query, _ = raw.parse_query_lenient(words, list(BOOSTS), field_boosts=BOOSTS)
    if publisher:
        of = Query.const_score_query(Query.term_query(raw.schema, "publisher", publisher), 0.0)
        query = Query.boolean_query([(Occur.Must, query), (Occur.Must, of)])
    searcher = raw.searcher()
    found = searcher.search(query, limit=_PAGE)
    return [searcher.doc(address)["model"][0] for _, address in found.hits]


class Encoder:
    """The demo's sentence encoder, run here as the workers run it."""

    def __init__(self) -> None:
        entry = next(e for e in CATALOGUE if e.name == "minilm")
        assert entry.tokenizer is not None
        self._tokenizer = Tokenizer.from_str(entry.tokenizer())
        self._tokenizer.enable_truncation(entry.context)
        self._tokenizer.enable_padding()
        self._session = onnxruntime.InferenceSession(str(entry.path), providers=["CPUExecutionProvider"])

    def __call__(self, texts: Sequence[str]) -> Array:
        """Float32 [len(texts), 384], each row of length 1."""
        rows = self._tokenizer.encode_batch(list(texts))
        mask = np.array([r.attention_mask for r in rows], np.int64)
        ids = np.array([r.ids for r in rows], np.int64)
        given = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
        wanted = {i.name: given[i.name] for i in self._session.get_inputs()}
        return pooled(self._session.run(None, wanted)[0], mask)


def by_meaning(snapshot: Snapshot) -> dict[str, Callable[[str], Sequence[str]]]:
    """The judged models by meaning, and by words and meaning, as the service merges them."""
    encode, listings = Encoder(), relevance.listings(JUDGED)
    names = [listing.model.model for listing in listings]
    vectors = np.vstack([encode([text_of(x) for x in listings[at : at + 16]]) for at in range(0, len(names), 16)])

    def near(query: str) -> list[str]:
        likeness = vectors @ encode([query])[0]
        return [names[i] for i in np.argsort(-likeness) if likeness[i] >= NEAR][:CANDIDATES]

    def search(query: str, begin: Callable[[Snapshot, Wanted, Sequence[str]], Search]) -> Sequence[str]:
        return begin(snapshot, Wanted(query, {"publisher": [JUDGED]}), near(query)).page(0, _LIMIT)

    return {MEANING: lambda q: search(q, semantic), HYBRID: lambda q: search(q, hybrid)}


def judge(search: Callable[[str], Sequence[str]]) -> float:
    """The mean of the judged queries."""
    return fmean(relevance.ndcg(search(query), grades) for query, grades in relevance.queries(JUDGED).items())


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.search", description=__doc__)
    parser.add_argument("--models", type=int, default=100_000, help="in the index [%(default)s]")
    parser.add_argument("--queries", type=int, default=1_000, help="asked of each side [%(default)s]")
    given = parser.parse_args()
    if not (given.models > 0 and given.queries > 0):
        parser.error("--models and --queries must be more than nothing")
    sys.stdout.reconfigure(line_buffering=True)
    measure(given.models, given.queries, print)


if __name__ == "__main__":
    main()
