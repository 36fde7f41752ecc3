"""Choosing tokens: as a plain reference does, each option by itself and all together."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.common.errors import EngineFailed
from services.common.texts import Options
from services.common.texts.sampler import Sampler, logprobs, resolved


def sampler(options: Options, prompt=(), seed=0) -> Sampler:
    return Sampler(resolved(options, {}), prompt, seed)


def logits_of(seed: int, size: int = 40, spread: float = 2.0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, spread, size).astype(np.float32)


def kept(logits: np.ndarray, o: Options) -> dict[int, float]:
    """The tokens that may be drawn with their chances, by sorting everything."""
    scaled = logits.astype(np.float64) / o.temperature
    chances = np.exp(scaled - scaled.max())
    order = [int(i) for i in np.argsort(-chances, kind="stable")]
    if o.top_k:
        order = order[: o.top_k]
    whole, reached, nucleus = sum(chances[i] for i in order), 0.0, []
    for i in order:
        nucleus.append(i)
        reached += chances[i]
        if reached >= o.top_p * whole:
            break
    order = [i for i in nucleus if chances[i] >= o.min_p * chances[order[0]]]
    whole = sum(chances[i] for i in order)
    return {i: chances[i] / whole for i in sorted(order)}


@given(
    st.integers(0, 10**6), st.integers(0, 2**63), st.floats(0.05, 2), st.integers(0, 50), st.floats(0, 1),
    st.floats(0, 1), st.sampled_from([7, 40, 700]),
)  # fmt: skip
def test_a_draw_is_the_references(numbers, seed, temperature, top_k, top_p, min_p, size):
    o = Options(temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p)
    logits = logits_of(numbers, size)
    chances = kept(logits, o)
    draw = np.random.Generator(np.random.PCG64(seed)).random() if seed else None
    token = sampler(o, seed=seed).choose(logits)
    if draw is None:
        assert token in chances
        return
    # Within rounding of an edge either neighbour is right.
    reached, right = 0.0, set()
    for i, chance in chances.items():
        if reached - 1e-4 <= draw <= reached + chance + 1e-4:
            right.add(i)
        reached += chance
    edges = kept(logits, Options(temperature=temperature, top_k=top_k, top_p=min(1, top_p + 1e-5), min_p=min_p - 1e-5))
    assert token in right or (len(edges) != len(chances) and token in edges)


def test_zero_temperature_takes_the_likeliest():
    logits = logits_of(3)
    assert sampler(Options(temperature=0)).choose(logits) == logits.argmax()
    assert sampler(Options(top_k=1), seed=5).choose(logits) == logits.argmax()
    assert sampler(Options(top_p=0.0), seed=5).choose(logits) == logits.argmax()


def test_frequencies_are_the_models():
    logits = np.log(np.array([0.5, 0.3, 0.2], np.float32))
    drawing = sampler(Options(), seed=1)
    found = np.bincount([drawing.choose(logits) for _ in range(5000)], minlength=3) / 5000
    assert np.abs(found - [0.5, 0.3, 0.2]).max() < 0.03


def test_logits_are_left_as_they_are():
    logits = logits_of(4)
    before = logits.copy()
    o = Options(logit_bias={1: 5.0}, repetition_penalty=2.0, presence_penalty=1.0, frequency_penalty=1.0, top_p=0.5)
    sampler(o, prompt=[1, 2]).choose(logits, np.ones(40, bool))
    assert (logits == before).all()


def test_bias_is_added_and_forbids():
    logits = np.zeros(5, np.float32)
    logits[2] = 3
    assert sampler(Options(temperature=0, logit_bias={4: 3.5})).choose(logits) == 4
    never = sampler(Options(logit_bias={2: -100}), seed=9)
    assert 2 not in {never.choose(logits) for _ in range(300)}


def test_repetition_penalty_is_for_prompt_and_answer():
    logits = np.array([2.0, 1.5, -1.0, 1.4], np.float32)
    assert sampler(Options(temperature=0, repetition_penalty=1.5), prompt=[0]).choose(logits) == 1
    answers = sampler(Options(temperature=0, repetition_penalty=1.5))
    assert [answers.choose(logits) for _ in range(4)] == [0, 1, 3, 0]
    negative = np.array([-1.0, -1.1], np.float32)
    assert sampler(Options(temperature=0, repetition_penalty=1.5), prompt=[0]).choose(negative) == 1


def test_presence_and_frequency_are_for_the_answer_alone():
    logits = np.array([1.0, 0.4, -5], np.float32)
    once = sampler(Options(temperature=0, presence_penalty=0.7), prompt=[0, 0])
    assert [once.choose(logits) for _ in range(4)] == [0, 1, 0, 0]
    each = sampler(Options(temperature=0, frequency_penalty=0.35), prompt=[0, 0])
    assert [each.choose(logits) for _ in range(5)] == [0, 0, 1, 0, 1]


@given(st.integers(0, 10**6), st.sets(st.integers(0, 39), min_size=1))
def test_only_what_is_allowed(seed, tokens):
    allowed = np.zeros(40, bool)
    allowed[list(tokens)] = True
    for o in (Options(), Options(temperature=0), Options(top_p=0.9, top_k=30)):
        assert sampler(o, seed=seed).choose(logits_of(seed), allowed) in tokens


@given(st.integers(-(2**63), 2**63 - 1))
def test_a_seed_gives_the_same_tokens_again(seed):
    a, b = sampler(Options(), seed=seed), sampler(Options(), seed=seed)
    assert [a.choose(logits_of(i)) for i in range(8)] == [b.choose(logits_of(i)) for i in range(8)]


def test_no_numbers_are_an_error_of_the_model():
    for bad in (np.full(4, np.nan, np.float32), np.full(4, -np.inf, np.float32), np.array([0, np.nan], np.float32)):
        for o in (Options(), Options(temperature=0)):
            with pytest.raises(EngineFailed):
                sampler(o).choose(bad)


@given(st.integers(0, 10**6), st.integers(0, 20), st.sampled_from([25, 700]))
def test_logprobs_are_of_the_whole_distribution(seed, top, size):
    logits = logits_of(seed, size, 4.0)
    exact = logits.astype(np.float64)
    exact -= exact.max() + math.log(np.exp(exact - exact.max()).sum())
    value, others = logprobs(logits, 3, top)
    assert value == pytest.approx(exact[3], abs=1e-4)
    assert [i for i, _ in others] == np.argsort(-logits, kind="stable")[:top].tolist()
    assert [v for _, v in others] == pytest.approx([exact[i] for i, _ in others], abs=1e-4)


def test_what_is_left_open_is_as_the_publisher_says():
    defaults = {"temperature": 0.2, "top_k": 5, "max_tokens": 7, "stop": ["x"], "repetition_penalty": 1.1}
    made = resolved(Options(top_k=0, top_p=0.5), defaults)
    assert (made.temperature, made.top_k, made.top_p, made.min_p) == (0.2, 0, 0.5, 0.0)
    assert (made.repetition_penalty, made.max_tokens, made.stop, made.n) == (1.1, 7, ("x",), 1)
    bare = resolved(Options(), {})
    assert (bare.temperature, bare.top_k, bare.top_p, bare.repetition_penalty) == (1.0, 0, 1.0, 1.0)
    with pytest.raises(ValueError, match="could not convert"):
        resolved(Options(), {"temperature": "warm"})
