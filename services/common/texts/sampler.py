"""Which token comes next. One row at a time: a row's choice must not depend on its company, and numpy is as fast on one
vocabulary as on sixteen."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from services.common.errors import EngineFailed
from services.common.texts import Options

Floats = NDArray[np.float32]
Ids = NDArray[np.int64]
_BLOCK = 256  # chances that are summed up before they are looked at one by one
_COLDEST = 1e-4  # temperature; below it only the likeliest token is left in any case


def resolved(options: Options, defaults: Mapping[str, Any]) -> Options:
    """With a value for all that was left open: the model's, else that of `mercat.inference.v1.Sampling`. Raises
    ValueError or TypeError when the model's are no numbers."""

    def number(value: float | None, name: str, otherwise: float) -> float:
        return float(defaults.get(name, otherwise)) if value is None else value

    return replace(
        options,
        max_tokens=options.max_tokens or int(defaults.get("max_tokens", 0)),
        temperature=number(options.temperature, "temperature", 1.0),
        top_k=int(number(options.top_k, "top_k", 0)),
        top_p=number(options.top_p, "top_p", 1.0),
        min_p=number(options.min_p, "min_p", 0.0),
        repetition_penalty=number(options.repetition_penalty, "repetition_penalty", 1.0),
        presence_penalty=options.presence_penalty or float(defaults.get("presence_penalty", 0.0)),
        frequency_penalty=options.frequency_penalty or float(defaults.get("frequency_penalty", 0.0)),
        stop=options.stop or tuple(map(str, defaults.get("stop", ()))),
        n=max(1, options.n),
    )


class Sampler:
    """One answer's. `options` are resolved; `seed` is any integer. Each token that is not simply the likeliest one
    takes one draw."""

    def __init__(self, options: Options, prompt: Sequence[int], seed: int) -> None:
        self._o = options
        self._rng = np.random.Generator(np.random.PCG64(seed % 2**64))
        self._bias_ids = np.fromiter(options.logit_bias.keys(), np.int64, len(options.logit_bias))
        self._bias = np.fromiter(options.logit_bias.values(), np.float32, len(options.logit_bias))
        self._repeated = options.repetition_penalty not in (None, 1.0)
        self._counted = bool(options.presence_penalty or options.frequency_penalty)
        self._adjusts = bool(len(self._bias)) or self._repeated or self._counted
        self._seen = _Seen(prompt if self._repeated else ())

    def choose(self, logits: Floats, allowed: NDArray[np.bool_] | None = None) -> int:
        """A token, from float32 [vocabulary], which is left as it is. Raises EngineFailed when there are no numbers in
        it."""
        o = self._o
        if self._adjusts or allowed is not None:
            logits = self._adjusted(logits, allowed)
        likeliest = int(logits.argmax())
        top = logits[likeliest]
        if not np.isfinite(top):
            raise EngineFailed("the model's answer is no number")
        token = likeliest if not o.temperature or o.top_k == 1 else self._drawn(logits, top)
        if self._repeated or self._counted:
            self._seen.add(token)
        return token

    def _adjusted(self, logits: Floats, allowed: NDArray[np.bool_] | None) -> Floats:
        o, made = self._o, logits.copy()
        if len(self._bias):
            made[self._bias_ids] += self._bias
        if self._repeated:
            ids = self._seen.ids
            seen = made[ids]
            penalty = np.float32(o.repetition_penalty)
            made[ids] = np.where(seen > 0, seen / penalty, seen * penalty)
        if self._counted:
            counts = self._seen.counts
            penalties = o.frequency_penalty * counts + o.presence_penalty * (counts > 0)
            made[self._seen.ids] -= penalties.astype(np.float32)
        if allowed is not None:
            made[~allowed] = -np.inf
        return made

    def _drawn(self, logits: Floats, top: np.float32) -> int:
        o = self._o
        assert o.temperature is not None
        assert o.top_k is not None
        assert o.top_p is not None
        assert o.min_p is not None
        chances = np.exp((logits - top) * np.float32(1 / max(o.temperature, _COLDEST)))  # the likeliest one's is 1
        ids: Ids | None = None
        if 0 < o.top_k < len(chances):
            ids = _likeliest(chances, o.top_k)
            chances = chances[ids]
        if o.top_p < 1:
            kept = _nucleus(chances, o.top_p)
            ids, chances = (kept if ids is None else ids[kept]), chances[kept]
        if o.min_p > 0:
            kept = np.flatnonzero(chances >= o.min_p)
            ids, chances = (kept if ids is None else ids[kept]), chances[kept]
        at = _at(chances, self._rng.random())
        return at if ids is None else int(ids[at])


# Sorting a vocabulary takes a hundred times as long as comparing it with a number. Most that is wanted of the likeliest
# tokens is among those over the first of these chances, beside the likeliest one's.
_CUTS = (0.03, 1e-3, 3e-5, 0.0)


def _likeliest(chances: Floats, count: int) -> Ids:
    """Ascending ids of so many of the likeliest, and of those as likely as the last of them."""
    for cut in _CUTS:
        ids = np.flatnonzero(chances >= cut)
        if len(ids) >= count:
            break
    found = chances[ids]
    least = np.partition(found, -count)[-count]
    return np.asarray(ids[found >= least], np.int64)


def _nucleus(chances: Floats, share: float) -> Ids:
    """Ascending ids of the fewest of the likeliest that have this share together, and of those as likely as the
    last."""
    wanted = share * float(chances.sum())
    for cut in _CUTS:
        ids = np.flatnonzero(chances >= cut)
        found = chances[ids]
        if float(found.sum()) >= wanted:
            break
    falling = np.sort(found)[::-1]
    last = min(int(np.searchsorted(np.cumsum(falling, dtype=np.float64), wanted)), len(falling) - 1)
    return np.asarray(ids[found >= falling[last]], np.int64)


def _at(chances: Floats, draw: float) -> int:
    """The place at which the sum of chances exceeds a share of the whole; its own chance is not 0."""
    ends = np.cumsum(np.add.reduceat(chances, np.arange(0, len(chances), _BLOCK)), dtype=np.float64)
    reached = draw * ends[-1]
    block = int(np.searchsorted(ends, _below(reached, ends[-1]), "right"))
    inside = np.cumsum(chances[block * _BLOCK : (block + 1) * _BLOCK], dtype=np.float64)
    reached -= ends[block - 1] if block else 0.0
    return block * _BLOCK + int(np.searchsorted(inside, _below(reached, inside[-1]), "right"))


def _below(value: float, end: float) -> float:
    """What rounding put past the end is before it."""
    return min(value, float(np.nextafter(end, 0.0)))


def logprobs(logits: Floats, token: int, top: int) -> tuple[float, list[tuple[int, float]]]:
    """Natural logarithms of the probabilities of a token and of the likeliest ones, these with their ids in falling
    order."""
    largest = logits.max()
    chances = np.exp(logits - largest)
    whole = largest + np.log(chances.sum(dtype=np.float64))
    ids = _likeliest(chances, top) if top else np.empty(0, np.int64)
    ids = ids[np.lexsort((ids, -logits[ids]))][:top]
    return float(logits[token] - whole), [(int(i), float(logits[i] - whole)) for i in ids]


class _Seen:
    """The tokens that occurred, each once, and how often in the answer."""

    def __init__(self, prompt: Sequence[int]) -> None:
        self.ids = np.unique(np.asarray(prompt, np.int64))
        self.counts = np.zeros(len(self.ids), np.int64)
        self._at = {token: at for at, token in enumerate(self.ids.tolist())}

    def add(self, token: int) -> None:
        at = self._at.setdefault(token, len(self._at))
        if at == len(self.ids):
            self.ids, self.counts = np.append(self.ids, token), np.append(self.counts, 0)
        self.counts[at] += 1
