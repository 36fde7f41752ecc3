"""Chats with a text model beside the decoder engine's own loop and llama.cpp's server: how fast tokens come, how soon
the first, how evenly while somebody brings a long prompt, and what is left of callers who leave."""

import time
from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from statistics import median
from typing import Any

import psutil
from mercat.billing.v1 import billing_pb2
from mercat.inference.v1 import text_pb2

from benchmarks import load, measure, processes, servers
from benchmarks.callers import Messages
from benchmarks.chats import conversation
from benchmarks.load import Streamed
from benchmarks.measure import Figure, Result, Round, Side
from benchmarks.mercat import Mercat
from benchmarks.peers import PeerError, Server
from benchmarks.stage import Options, Stage
from services.cli.demo.catalogue import CATALOGUE
from services.registry.validation import gguf_model
from tests import metrics
from tests.platform import USD, Account

TITLE = "SmolLM2 135M, chats: a short question, an answer of 200 tokens, the likeliest token always"
_AT_A_TIME = (1, 4, 8, 16)
_PEER = 8  # slots of the peer
_ANSWER, _SHORT = 200, 8  # tokens
_PAIRS = {1: 12, 4: 9, 8: 9, 16: 6}  # of answers, through Envoy and by the engine's own loop, by how many at a time
_FIRSTS = 45  # pairs for the first token
_CONTEXT = 512  # tokens of a slot of the peer, which hold such a chat
_LONG, _BESIDE = 1_500, 7  # tokens of the prompt that comes while so many answers are under way
_LEFT, _OPEN, _LEAVE = 200, 20, 1.5  # chats that are left, how many at a time, and after how many seconds at most
_SLOTS = 16  # of a decoder, by default
_SECONDS, _ROUNDS = 4.0, 3  # at most: there are many sides, and each begins and ends with less than all its streams
_ENVOY, _FLOOR, _LLAMA = "Mercat, through Envoy", "the engine's own loop", "llama.cpp, bare"


def seconds(options: Options) -> float:
    rounds = _rounds(options)
    return 520 + (len(_AT_A_TIME) + 3) * (4.5 + rounds * (3.5 + min(options.seconds, _SECONDS))) + rounds * 15


def run(stage: Stage) -> Result:
    file, result = _file(), Result("streaming", TITLE)
    floor = stage.folder / "smollm2.onnx"
    gguf_model.convert(file, floor)
    chats = _Chats(stage, floor, stage.mercat.publish_text(file))
    with ExitStack() as stack:
        threads = stage.options.threads
        start = partial(
            servers.llama, file, stage.folder, stage.tell, threads=threads, slots=_PEER, context=_CONTEXT
        )  # fmt: skip
        if server := stage.peer("llama.cpp", start, result.notes):
            stack.enter_context(server)
        chats.rates(result, server)
    chats.in_pairs(result)
    chats.beside_a_long_prompt(result)
    chats.left(result)
    return result


class _Chats:
    """`floor`: the decoder's file, `model`: its name in Mercat."""

    def __init__(self, stage: Stage, floor: Path, model: str) -> None:
        self._stage, self._floor, self._model = stage, floor, model
        self._mercat: Mercat = stage.mercat
        self._job = {"kind": "grpc", "target": self._mercat.envoy, "model": model, "cut": False}
        self._prompt = self._tokens(conversation())
        self._decoder = _decoder(self._mercat)

    def rates(self, result: Result, server: Server | None) -> None:
        stage, options = self._stage, self._stage.options
        sides = [self._engine(_name(_FLOOR, callers), callers) for callers in (1, _PEER)]
        for callers in _AT_A_TIME:
            sides.append(self._through(_name(_ENVOY, callers), callers))
            if callers == _PEER and server is not None:
                sides.append(self._peer(server))
        rounds, seconds = _rounds(options), min(options.seconds, _SECONDS)
        taken = measure.alternate(sides, seconds=seconds, rounds=rounds, tell=stage.tell)
        result.rows += [measure.summarise(name, found, "tokens/s") for name, found in taken.items()]
        self._figures(result, taken, peer=server is not None)

    def _figures(self, result: Result, taken: dict[str, list[Round]], *, peer: bool) -> None:
        figures = result.figures
        eight = taken[_name(_ENVOY, 8)]
        figures.append(Figure("tokens/s of 8 chats ÷ of 1", measure.ratios(eight, taken[_name(_ENVOY, 1)]), 2.7))
        if peer:
            name = f"tokens/s of 8 chats ÷ llama.cpp's server with {_PEER} slots, bare"
            figures.append(Figure(name, measure.ratios(eight, taken[_LLAMA]), 1.2))
        own = Figure("", measure.ratios(taken[_name(_FLOOR, _PEER)], taken[_name(_FLOOR, 1)]), 1).value
        result.notes.append(f"a question is {self._prompt} tokens; the engine's own loop at 8 ÷ at 1: {own:.2f}")
        for name, rounds in taken.items():
            loads = [r.load for r in rounds if isinstance(r.load, Streamed) and r.load.messages]
            if loads:
                tokens = sum(each.ok for each in loads)
                messages, octets = (sum(getattr(each, of) for each in loads) / tokens for of in ("messages", "octets"))
                result.notes.append(f"{name}: {messages:.2f} messages and {octets:.0f} octets a token on the wire")

    def in_pairs(self, result: Result) -> None:
        """Chats beside the engine's own loop, an answer each in turn: from one second to the next a machine that others
        share is faster or slower by more than what lies between the two."""
        figures = []
        for callers in _AT_A_TIME:
            own, through = self._paired(callers, _PAIRS[callers], _ANSWER)
            kept = [mine[1] / theirs[1] for mine, theirs in zip(own, through, strict=True)]
            name = f"tokens/s of {_chats(callers)} through Envoy ÷ the engine's own loop"
            figures.append(Figure(name, _turns(kept), 0.95))
            rates = [callers * _ANSWER * 1e3 / median(one[1] for one in side) for side in (through, own)]
            result.notes.append(
                f"{_chats(callers)} in turn with the engine's own loop, {_PAIRS[callers]} times answers of {_ANSWER} "
                f"tokens: from the question to the last token {rates[0]:.0f} tokens/s, and {rates[1]:.0f} by itself"
            )
        result.figures[:0] = figures
        own, through = self._paired(1, _FIRSTS, _SHORT)
        added = [theirs[0] - mine[0] for mine, theirs in zip(own, through, strict=True)]
        name = "first token of 1 chat, added to the engine's own"
        result.figures.append(Figure(name, _turns(added), 5, "ms", at_most=True))
        first = [median(one[0] for one in side) for side in (through, own)]
        result.notes.append(
            f"one chat in turn with the engine's own loop, {_FIRSTS} times with answers of {_SHORT} tokens: the first "
            f"token came after {first[0]:.1f} ms through Envoy and {first[1]:.1f} of the loop's own"
        )

    def _paired(self, callers: int, number: int, answer: int) -> tuple[list[list[float]], list[list[float]]]:
        """Milliseconds to first and last token, of the loop and through Envoy."""
        self._stage.tell(f"{_chats(callers)}, {number} pairs of answers of {answer} tokens …")
        floor = servers.floor(self._floor, threads=self._stage.options.threads, prompt=self._prompt, answer=answer)
        person = self._mercat.platform.sign_up(credit=USD)
        found = self._ours(
            person, what="in_pairs", number=number, warm_up=3 if callers == 1 else 1, callers=callers, answer=answer,
            floor=floor, seconds=300,
        )  # fmt: skip
        return found["own"], found["through"]

    def beside_a_long_prompt(self, result: Result) -> None:
        """Those who chat are not of those whose calls are counted: they go without waiting for the end."""
        longer = _LONG - self._prompt
        prompt = self._tokens(conversation(longer))
        person = self._mercat.platform.sign_up(credit=USD)
        ratios = []
        for _ in range(_rounds(self._stage.options)):
            found = self._ours(person, what="beside", callers=_BESIDE + 1, answer=1_000, longer=longer, seconds=60)
            usual, meanwhile = found["usual"], found["meanwhile"]
            ratios.append(meanwhile["gap_p99_ms"] / usual["gap_p99_ms"])
            said = (
                f"{_BESIDE} streams: gaps of {usual['gap_p50_ms']:.1f} ms (p99 {usual['gap_p99_ms']:.1f}); while "
                f"{prompt:,} tokens of prompt are run, for {found['first_token_ms'] / 1e3:.1f} s, "
                f"{meanwhile['gap_p50_ms']:.1f} (p99 {meanwhile['gap_p99_ms']:.1f})"
            )
            self._stage.tell(said)
        result.notes.append(said)
        name = f"p99 of the gaps of {_BESIDE} streams while {prompt:,} tokens of prompt are run ÷ the usual p99"
        result.figures.append(Figure(name, ratios, 2.5, at_most=True))

    def left(self, result: Result) -> None:
        person = self._mercat.platform.sign_up(credit=USD)
        leave = partial(
            self._ours, person, what="left", number=_LEFT, callers=_OPEN, answer=_ANSWER, seconds=_LEAVE
        )  # fmt: skip
        leave()  # what the decoder keeps of prompts reaches its bound
        self._after(person)
        before = self._memory()
        found = leave()
        free, wallet = self._after(person)
        after = self._memory()
        result.notes.append(
            f"of {_LEFT} chats {found['before_first']} were left before their first token and {found['in_the_middle']} "
            f"after it; MiB of the worker's and the decoder's own (USS): {before[0]:.0f} and {before[1]:.0f} before, "
            f"{after[0]:.0f} and {after[1]:.0f} after"
        )
        figures, left = result.figures, f"after {_LEFT} chats were left:"
        figures.append(Figure(f"{left} free slots of {_SLOTS}", [free], _SLOTS))
        of_own = wallet.balance_nanos - wallet.reserved_nanos
        figures.append(Figure(f"{left} credit that is not reserved ÷ credit", [of_own / wallet.balance_nanos], 1))
        figures.append(Figure(f"{left} memory ÷ before", [sum(after) / sum(before)], 1.05, at_most=True))

    def _after(self, person: Account) -> tuple[float, billing_pb2.Wallet]:
        """Free slots and the wallet, as soon as nothing is reserved any more, or after half a minute."""
        platform = self._mercat.platform
        deadline = time.monotonic() + 30
        while True:
            wallet = person.billing.GetWallet(billing_pb2.GetWalletRequest()).wallet
            if not wallet.reserved_nanos or time.monotonic() > deadline:
                break
            time.sleep(0.5)
        taken = metrics.total(platform, "mercat_text_running", self._model)
        return _SLOTS - taken - metrics.total(platform, "mercat_text_waiting", self._model), wallet

    def _memory(self) -> tuple[float, float]:
        worker = self._mercat.platform.pids()["worker-0"]
        return processes.memory_mib(worker)[0], processes.memory_mib(self._decoder)[0]

    def _tokens(self, messages: Messages) -> int:
        request = text_pb2.CountTokensRequest(
            model=self._model, messages=[text_pb2.ChatMessage(role=role, content=said) for role, said in messages]
        )
        return int(self._mercat.consumer.text.CountTokens(request, timeout=60).tokens)

    def _ours(self, person: Account, **job: Any) -> dict[str, Any]:
        return load.ours("chats", {**self._job, "key": person.api_key, **job}, self._stage.folder)[0]

    def _engine(self, name: str, callers: int, answer: int = _ANSWER) -> Side:
        def run(seconds: float) -> Round:
            found = servers.decoder(
                self._floor, threads=self._stage.options.threads, seconds=seconds, streams=callers,
                prompt=self._prompt, answer=answer,
            )  # fmt: skip
            return Round(Streamed(
                found["tokens_per_second"], found["gap_p50_ms"], found["gap_p99_ms"], {"OK": int(found["tokens"])},
                first_token_ms=found["first_token_ms"],
            ))  # fmt: skip

        return Side(name, run)

    def _through(self, name: str, callers: int, answer: int = _ANSWER) -> Side:
        def run(seconds: float) -> Round:
            job = {
                **self._job, "key": self._mercat.consumer.api_key, "callers": callers, "answer": answer,
                "seconds": seconds,
            }  # fmt: skip
            pids = {"decoder": self._decoder}
            before = processes.cpu_seconds(pids)
            got = self._mercat.turn("client", lambda: load.chats(job, self._stage.folder))
            took = processes.spent(before, processes.cpu_seconds(pids))
            worker = got.cpu["worker-0"] - took["decoder"]  # whose child it is
            return Round(got.load, {**got.cpu, "worker-0": worker, **took})

        return Side(name, run)

    def _peer(self, server: Server) -> Side:
        def run(seconds: float) -> Round:
            job = {
                "kind": "sse", "target": server.target, "key": "", "model": "model", "callers": _PEER,
                "answer": _ANSWER, "seconds": seconds, "cut": True,
            }  # fmt: skip
            pids = {server.name: server.pid}
            before = processes.cpu_seconds(pids)
            got = load.chats(job, self._stage.folder)
            took = processes.spent(before, processes.cpu_seconds(pids))
            return Round(got, took | {"client": got.generator_seconds})

        return Side(_LLAMA, run)


def _chats(callers: int) -> str:
    return "1 chat" if callers == 1 else f"{callers} chats"


def _name(what: str, callers: int) -> str:
    return f"{what}, {callers} at a time"


def _turns(found: Sequence[float]) -> list[float]:
    """Medians of as many parts, taken in turn."""
    return [median(found[at::_ROUNDS]) for at in range(_ROUNDS)]


def _rounds(options: Options) -> int:
    return min(options.rounds, _ROUNDS)


def _decoder(mercat: Mercat) -> int:
    """The decoder's process; there is one as soon as it was asked something."""
    worker = psutil.Process(mercat.platform.pids()["worker-0"])
    return next(child.pid for child in worker.children() if "services.inference.text.host" in child.cmdline())


def _file() -> Path:
    """The demo's model. Raises PeerError when its package is not installed."""
    try:
        return next(entry.path for entry in CATALOGUE if entry.name == "smollm2")
    except PackageNotFoundError as error:
        raise PeerError(f"{error.name} is not installed; `make install` installs it") from None
