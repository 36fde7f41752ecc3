"""A model that does real work: MiniLM, int8, 32 tokens a row, beside the engine alone with as many threads."""

from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from importlib.metadata import PackageNotFoundError
from pathlib import Path

from benchmarks import measure, requests, servers
from benchmarks.load import Load
from benchmarks.measure import Figure, Result, Round, Side
from benchmarks.peers import PeerError
from benchmarks.stage import Options, Stage
from services.cli.demo.catalogue import CATALOGUE

TITLE = "MiniLM int8, 32 tokens, one row per call"
_TOKENS = 32
_BATCHES = (1, 2, 4, 8, 16, 32)
_ENVOY = "Mercat, through Envoy"
_LONG = (
    10.0  # seconds of a round at least: answers come 32 at a time, four times a second, and one lot is not to decide
)


def seconds(options: Options) -> float:
    return 45 + replace(options, seconds=max(options.seconds, _LONG)).turns(4)


def run(stage: Stage) -> Result:
    options, file = stage.options, _file()
    result = Result("minilm", TITLE)
    raw = partial(servers.raw, file, threads=options.threads, tokens=_TOKENS)
    found = raw(batches=_BATCHES, seconds=2)
    best = max(found, key=lambda batch: found[batch])
    model = stage.mercat.publish(file.read_bytes(), batch=max(_BATCHES), preferred=[best])
    said = ", ".join(f"{batch}: {rate:,.0f}" for batch, rate in found.items())
    result.notes.append(f"rows per second of `session.run` by batch size, {options.threads} threads: {said}")
    floor = f"session.run in a loop, {best} rows at a time"

    def loop(seconds: float) -> Round:
        rate = raw(batches=[best], seconds=seconds)[best]
        each = best / rate * 1e3
        return Round(Load(rate, each, each, {"OK": round(rate * seconds)}))

    with ExitStack() as stack:
        sides = [
            Side(floor, loop),
            stage.infer(
                _ENVOY, stage.mercat.envoy, requests.sentence(model, _TOKENS), in_flight=options.in_flight
            ),
        ]  # fmt: skip
        request = requests.sentence("model", _TOKENS)
        for name, start in (
            ("MLServer", partial(
                servers.mlserver, file, stage.folder, stage.tell, threads=options.threads, workers=0
            )),
            ("Triton", partial(
                servers.triton, file, stage.folder, threads=options.threads, batch=max(_BATCHES), preferred=best
            )),
        ):  # fmt: skip
            if server := stage.peer(name, start, result.notes):
                stack.enter_context(server)
                sides.append(stage.bare(f"{name}, bare", server, request, in_flight=options.in_flight))
        taken = measure.alternate(
            sides, seconds=max(options.seconds, _LONG), rounds=options.rounds, tell=stage.tell
        )  # fmt: skip
    result.rows = [measure.summarise(name, rounds) for name, rounds in taken.items()]
    kept = measure.ratios(taken[_ENVOY], taken[floor])
    result.figures.append(Figure("MiniLM rows/s through Envoy ÷ session.run at its best batch", kept, 0.95))
    return result


def _file() -> Path:
    """The demo's model. Raises PeerError when its package is not installed."""
    try:
        return next(entry.path for entry in CATALOGUE if entry.name == "minilm")
    except PackageNotFoundError as error:
        raise PeerError(f"{error.name} is not installed; `make install` installs it") from None
