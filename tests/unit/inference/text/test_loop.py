"""The decoder's loop, on a small model with random weights: whatever goes on beside it, a call's answer is the one it
gets alone, to the last bit of its log-probabilities; and who waits is served as promised."""

import itertools
import json
import re
from collections import defaultdict
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.common.errors import DeadlineExceeded, EngineFailed, InvalidFields, MercatError
from services.common.texts import LENGTH, STOP, BadFormat, BadPrompt, Options, Piece, Prompt, PromptTooLong
from services.common.texts.limits import Limits
from services.inference.text import StreamsFull
from services.inference.text.decoder.engine import Engine
from services.inference.text.decoder.pace import Pace, cut
from services.inference.text.decoder.prefixes import BLOCK
from services.inference.text.news import Event
from services.inference.tickets import TooLate
from tests import graphs
from tests.decoder_graph import decoder, tokenizer

PLAIN = Limits(slots=8, prefix_mb=0)
VOCABULARY = tokenizer().get_vocab_size()
# Random weights end an answer at random; these do not, and tell the bits of every choice.
LONG = Options(max_tokens=24, logit_bias={0: -100, 2: -100}, seed=11, logprobs=2)


class Desk:
    """An engine whose loop turns when it is told to, and what it told, by call. `now` is its clock."""

    def __init__(self, path: Path, limits: Limits = PLAIN) -> None:
        self.now = 0.0
        self.engine = Engine(path, limits, self._take, lambda: self.now)
        self.pieces: dict[int, list[Piece]] = defaultdict(list)
        self.cached: dict[int, int] = {}
        self.ended: list[int] = []
        self.errors: dict[int, MercatError] = {}
        self.under_way = (0, 0)  # running and waiting calls, as last told
        self._numbers = itertools.count(1)

    def _take(self, events: list[Event]) -> None:
        self.under_way = (self.engine.stats.running, self.engine.stats.waiting)
        for event in events:
            self.pieces[event.number] += event.pieces
            if event.cached is not None:
                self.cached[event.number] = event.cached
            if event.end:
                self.ended.append(event.number)
                if event.error is not None:
                    self.errors[event.number] = event.error

    def ask(self, prompt: Prompt, options: Options = LONG, account: str = "a", level: int = 0, seconds=None) -> int:
        number = next(self._numbers)
        self.engine.prepare(number, prompt, options)
        self.engine.generate(number, account, level, seconds)
        return number

    def turn(self, times: int = 1) -> None:
        for _ in range(times):
            self.engine.loop.turn()

    def run(self) -> "Desk":
        while self.engine.loop.turn():
            pass
        return self

    def text(self, number: int, index: int = 0) -> str:
        assert number not in self.errors
        return "".join(p.text for p in self.pieces[number] if p.index == index)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("decoder") / "model.onnx"
    path.write_bytes(decoder())
    return path


def noise(length: int, seed: int = 0) -> Prompt:
    return Prompt(tokens=np.random.default_rng(seed).integers(3, VOCABULARY, length).tolist())


def alone(model: Path, prompt: Prompt, options: Options = LONG) -> list[Piece]:
    desk = Desk(model)
    number = desk.ask(prompt, options)
    return desk.run().pieces[number]


def test_company_changes_nothing(model: Path) -> None:
    """Calls of all lengths that come and go, some for several answers, some with prompts that are known; each leaves
    its row to the last one."""
    rng = np.random.default_rng(3)
    desk, calls = Desk(model, Limits(slots=8, prefix_mb=1)), {}
    for i in range(24):
        options = replace(
            LONG, max_tokens=int(rng.integers(1, 40)), seed=i, temperature=float(rng.uniform(0, 1.5)),
            n=int(rng.choice([1, 1, 3])),
        )  # fmt: skip
        prompt = noise(int(rng.choice([1, 2, 3, 15, 17, 33, 129, 300])), int(rng.integers(3)))
        calls[desk.ask(prompt, options)] = prompt, options
        desk.turn(int(rng.integers(0, 9)))
    desk.run()
    assert sorted(desk.ended) == sorted(calls)
    assert max(desk.cached.values()) == 256 + 32
    for number, (prompt, options) in calls.items():
        for index in range(options.n):
            single = alone(model, prompt, replace(options, n=1, seed=(options.seed or 0) + index))
            assert [replace(p, index=0) for p in desk.pieces[number] if p.index == index] == single


@given(st.integers(1, 3000), st.lists(st.integers(2, 32), min_size=1))
def test_no_piece_leaves_a_token_by_itself(length: int, sizes: list[int]) -> None:
    left = length
    for size in itertools.cycle(sizes):
        taken = cut(left, size * 4)
        assert 0 < taken <= size * 4
        assert taken % 16 != 1 or length == 1
        left -= taken
        if not left:
            break


def test_pieces_are_as_long_as_a_step_or_as_many_wait() -> None:
    pace = Pace()
    pace.stepped(0.020)
    pace.read(100, 0.1)
    assert pace.piece(1500, 0, 1) == 128
    assert pace.piece(1500, 7, 1) == 22
    assert pace.piece(1500, 4, 8) == 46
    assert pace.piece(1500, 1, 15) == 128
    assert pace.piece(10, 7, 1) == 10
    assert pace.piece(64, 7, 1) == 64
    assert pace.piece(65, 7, 1) == 22
    pace.step = 0.001
    assert pace.piece(1500, 7, 1) == 6


@pytest.mark.parametrize("length", [1, 2, 16, 17, 18, 31, 33, 127, 128, 129, 130, 257, 400])
def test_a_prompt_in_pieces_is_the_prompt(model: Path, length: int) -> None:
    desk = Desk(model)
    desk.ask(noise(5, 99), replace(LONG, max_tokens=400))  # beside an answer under way the pieces are small
    desk.turn(3)
    beside = desk.ask(noise(length))
    desk.run()
    assert desk.pieces[beside] == alone(model, noise(length))


def test_an_answer_goes_on_during_a_long_prompt(model: Path) -> None:
    desk = Desk(model)
    desk.ask(noise(5), replace(LONG, max_tokens=400))
    desk.turn(2)
    long = desk.ask(noise(450, 1))
    for _ in range(3):  # every turn brings a token, and the prompt needs more turns than these
        before = desk.engine.stats.tokens
        desk.turn()
        assert desk.engine.stats.tokens == before + 1
    assert not desk.pieces[long]


def test_a_short_prompt_need_not_wait_for_a_long_one(model: Path) -> None:
    desk = Desk(model)
    desk.ask(noise(5), replace(LONG, max_tokens=400))
    desk.turn(2)
    long, short = desk.ask(noise(450, 1)), desk.ask(noise(20, 2), replace(LONG, max_tokens=1))
    desk.turn(6)
    assert desk.pieces[short]
    assert not desk.pieces[long]


@pytest.mark.parametrize("length", [BLOCK + 1, BLOCK + 2, 2 * BLOCK + 1, 97, 161, 200])
def test_a_known_prefix_changes_nothing(model: Path, length: int) -> None:
    desk = Desk(model, Limits(slots=8, prefix_mb=4))
    first = desk.ask(noise(length))
    desk.run()
    again = desk.ask(noise(length))
    desk.run()
    tokens = noise(length).tokens
    assert tokens is not None
    longer = Prompt(tokens=[*tokens[: length - 1], 7, 8, 9])
    more = desk.ask(longer)
    elsewhere = desk.ask(noise(length), account="b")
    desk.run()
    known = (length - 2) // BLOCK * BLOCK
    assert (desk.cached[first], desk.cached[again], desk.cached[elsewhere]) == (0, known, 0)
    assert desk.cached[more] == (length - 1) // BLOCK * BLOCK
    assert desk.pieces[again] == desk.pieces[first] == desk.pieces[elsewhere] == alone(model, noise(length))
    assert desk.pieces[more] == alone(model, longer)
    assert desk.engine.stats.cached_tokens == desk.cached[again] + desk.cached[more]


def test_the_least_used_prefixes_are_dropped(model: Path) -> None:
    desk = Desk(model, Limits(slots=8, prefix_mb=1))  # a token is 1 KiB, so 32 blocks
    kept = desk.ask(noise(300, 0))
    for seed in range(1, 6):
        desk.ask(noise(300, seed))
        desk.ask(noise(300, 0))
        desk.run()
    last, first = desk.ask(noise(300, 0)), desk.ask(noise(300, 1))
    desk.run()
    assert (desk.cached[kept], desk.cached[last], desk.cached[first]) == (0, 288, 0)


def test_several_answers_are_those_of_their_seeds(model: Path) -> None:
    desk = Desk(model)
    options = replace(LONG, seed=20)
    number = desk.ask(noise(100), replace(options, n=3))
    desk.run()
    assert desk.engine.stats.prompt_tokens == 100
    for index in range(3):
        single = alone(model, noise(100), replace(options, seed=20 + index))
        assert [replace(p, index=0) for p in desk.pieces[number] if p.index == index] == single
    assert desk.ended == [number]


def test_more_answers_than_places_are_refused(model: Path) -> None:
    with pytest.raises(InvalidFields):
        Desk(model, Limits(slots=2)).ask(noise(4), replace(LONG, n=3))


def test_accounts_take_turns_and_classes_go_first(model: Path) -> None:
    desk = Desk(model, Limits(slots=1))
    options = replace(LONG, max_tokens=2)
    a, b = [desk.ask(noise(4), options, "a") for _ in range(4)], [desk.ask(noise(4), options, "b") for _ in range(2)]
    urgent = desk.ask(noise(4), options, "c", level=1)
    later = desk.ask(noise(4), options, "d", level=2)
    desk.run()
    assert desk.ended == [a[0], b[0], urgent, a[1], b[1], a[2], a[3], later]


def test_a_cancelled_call_leaves_at_once_and_disturbs_nobody(model: Path) -> None:
    desk = Desk(model, Limits(slots=3, prefix_mb=0))
    calls = [desk.ask(noise(9, i), replace(LONG, seed=i)) for i in range(4)]
    desk.turn(8)
    assert (desk.engine.stats.running, desk.engine.stats.waiting) == (3, 1)
    desk.engine.cancel(calls[0])
    told = len(desk.pieces[calls[0]])
    desk.turn(3)
    assert len(desk.pieces[calls[0]]) == told
    assert desk.pieces[calls[3]]
    desk.run()
    assert calls[0] not in desk.ended
    for i in (1, 2, 3):
        assert desk.pieces[calls[i]] == alone(model, noise(9, i), replace(LONG, seed=i))
    desk.engine.cancel(calls[1])  # it is over, and nothing comes of it
    desk.run()
    assert len(desk.ended) == 3


def test_who_waits_or_is_being_read_can_be_cancelled(model: Path) -> None:
    desk = Desk(model, Limits(slots=1))
    long, waits = desk.ask(noise(400)), desk.ask(noise(4))
    desk.turn()
    assert desk.under_way == (1, 1)
    desk.engine.cancel(long)
    desk.engine.cancel(waits)
    desk.run()
    assert desk.under_way == (0, 0)
    assert desk.ended == []
    assert not desk.pieces[long] + desk.pieces[waits]
    number = desk.ask(noise(4))
    assert desk.run().pieces[number] == alone(model, noise(4))


def test_deadlines(model: Path) -> None:
    desk = Desk(model, Limits(slots=1))
    running, waiting = desk.ask(noise(4), seconds=5), desk.ask(noise(4), seconds=4)
    free = desk.ask(noise(4))
    desk.turn(2)
    desk.now = 4.5
    desk.turn()
    desk.now = 6
    desk.run()
    assert isinstance(desk.errors[waiting], TooLate)
    assert type(desk.errors[running]) is DeadlineExceeded
    assert desk.pieces[running]
    assert not desk.pieces[waiting]
    assert desk.text(free)
    hopeless = desk.ask(noise(400), seconds=1e-9)
    desk.run()
    assert isinstance(desk.errors[hopeless], TooLate)


def test_a_full_queue_says_so_and_prefers_higher_classes(model: Path) -> None:
    desk = Desk(model, Limits(slots=1, waiting=2))
    first = desk.ask(noise(4))
    desk.turn()
    low = [desk.ask(noise(4), level=3) for _ in range(3)]
    desk.turn()
    high = desk.ask(noise(4), level=1)
    desk.run()
    assert desk.ended.index(high) < desk.ended.index(low[0])
    assert sorted(desk.errors) == [low[1], low[2]]
    for error in desk.errors.values():
        assert isinstance(error, StreamsFull)
        assert error.retry_after is not None
        assert 0 < error.retry_after <= 5
    assert desk.text(first)


def test_memory_bounds_what_runs_together(model: Path) -> None:
    desk = Desk(model, Limits(slots=8, memory_mb=1))  # 1,024 tokens, two whole contexts
    for i in range(4):
        desk.ask(noise(100, i), replace(LONG, max_tokens=0))
    most = 0
    while desk.engine.loop.turn():
        most = max(most, desk.engine.stats.running)
    assert most == 2
    assert len(desk.ended) == 4


def test_an_answer_ends_at_its_length_or_with_the_context(model: Path) -> None:
    desk = Desk(model, Limits(slots=2, context=64))
    assert desk.engine.context_tokens == 64
    short, full = desk.ask(noise(60), replace(LONG, max_tokens=3)), desk.ask(noise(60), replace(LONG, max_tokens=0))
    exact = desk.engine.prepare(99, noise(63), replace(LONG, n=2))
    assert (exact.input_tokens, exact.most_tokens) == (63, 2)
    desk.run()
    for number, tokens in ((short, 3), (full, 4)):
        assert sum(p.tokens for p in desk.pieces[number]) == tokens
        assert desk.pieces[number][-1].finish == LENGTH
    with pytest.raises(PromptTooLong):
        desk.ask(noise(64))


def test_an_answer_ends_at_a_stop_token_which_is_none_of_it(model: Path) -> None:
    desk = Desk(model)
    number = desk.ask(noise(4), replace(LONG, logit_bias={2: 100}))
    assert desk.run().pieces[number] == [Piece(0, "", 0, STOP)]


def test_an_answer_ends_before_a_stop_string(model: Path) -> None:
    whole = "".join(p.text for p in alone(model, noise(4)))
    stop = whole[7:10]
    pieces = alone(model, noise(4), replace(LONG, stop=(stop, "never")))
    assert "".join(p.text for p in pieces) == whole[: whole.index(stop)]
    assert pieces[-1].finish == STOP


def test_logprobs_are_of_the_tokens_told(model: Path) -> None:
    pieces = alone(model, noise(4), replace(LONG, temperature=0))
    told = [logprob for p in pieces for logprob in p.logprobs]
    assert len(told) == sum(p.tokens for p in pieces) == 24
    assert b"".join(each.data for each in told).decode(errors="replace").startswith("".join(p.text for p in pieces)[:5])
    for each in told:
        assert 0 >= each.top[0].logprob >= each.top[1].logprob
        assert each == replace(each.top[0], top=each.top) or each.top[0].token in ("<|endoftext|>", "<|im_end|>")
    assert not any(p.logprobs for p in alone(model, noise(4), replace(LONG, logprobs=None)))


SCHEMA = {
    "type": "object",
    "properties": {"age": {"type": "integer", "minimum": 0, "maximum": 120}, "name": {"enum": ["Ada"]}},
    "required": ["age", "name"], "additionalProperties": False,
}  # fmt: skip


@pytest.mark.parametrize("seed", range(8))
def test_an_answer_keeps_to_its_form(model: Path, seed: int) -> None:
    desk = Desk(model)
    free = Options(max_tokens=300, seed=seed)
    schema = desk.ask(noise(4), replace(free, json_schema=json.dumps(SCHEMA)))
    regex = desk.ask(noise(4), replace(free, regex="[0-9]{3}-(ä|cd)+!"))
    thing = desk.ask(noise(4), replace(free, json_object=True, logit_bias={tokenizer().token_to_id("}"): 100}))
    desk.run()
    parsed = json.loads(desk.text(schema))
    assert parsed["name"] == "Ada"
    assert 0 <= parsed["age"] <= 120
    assert re.fullmatch("[0-9]{3}-(ä|cd)+!", desk.text(regex))
    assert isinstance(json.loads(desk.text(thing)), dict)
    assert {desk.pieces[number][-1].finish for number in (schema, regex, thing)} == {STOP}


@pytest.mark.parametrize(
    "form",
    [
        {"regex": "["}, {"regex": "(?<=a)b"}, {"json_schema": "{"}, {"json_schema": "[]"},
        {"json_schema": '{"type": "nothing"}'}, {"json_schema": '{"$ref": "http://localhost/x"}'},
    ],
)  # fmt: skip
def test_a_form_that_is_none_is_refused(model: Path, form: dict[str, str]) -> None:
    with pytest.raises(BadFormat):
        Desk(model).engine.prepare(1, noise(4), Options(**form))


def test_what_is_refused_before_it_is_kept(model: Path) -> None:
    desk = Desk(model, Limits(slots=2, prepared=1))
    with pytest.raises(BadPrompt):
        desk.engine.prepare(1, Prompt(tokens=[VOCABULARY]), LONG)
    with pytest.raises(InvalidFields):
        desk.engine.prepare(1, noise(4), replace(LONG, logit_bias={VOCABULARY: 1.0}))
    desk.engine.prepare(1, noise(4), LONG)
    with pytest.raises(StreamsFull):
        desk.engine.prepare(2, noise(4), LONG)
    desk.engine.forget(1)
    desk.engine.prepare(2, noise(4), LONG)
    assert desk.engine.count(Prompt(messages=[{"role": "user", "content": "hi"}])) > 10


def test_a_publishers_defaults_hold(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(decoder(config={"defaults": {"temperature": 0, "max_tokens": 5}, "stop_tokens": ()}))
    desk = Desk(path)
    number = desk.ask(noise(4), Options())
    other = desk.ask(noise(4), Options(temperature=0, max_tokens=6))
    desk.run()
    assert sum(p.tokens for p in desk.pieces[number]) == 5
    assert desk.text(other).startswith(desk.text(number))


@pytest.mark.parametrize(
    "config",
    [
        {"kind": "encoder"}, {"defaults": {"temperature": "warm"}}, {"layers": 3}, {"kv_heads": 3}, {"vocabulary": 7},
        {"layers": 10**9}, {"head_dim": 10**15},
        {"chat_template": "{% for %}"},
    ],
)  # fmt: skip
def test_a_file_that_is_no_decoder_does_not_load(tmp_path: Path, config: dict[str, object]) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(decoder(config=config))
    with pytest.raises(EngineFailed):
        Desk(path)


def test_another_graph_does_not_load(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(graphs.tiny())
    with pytest.raises(EngineFailed):
        Desk(path)
    path.write_bytes(b"nothing")
    with pytest.raises(EngineFailed):
        Desk(path)
