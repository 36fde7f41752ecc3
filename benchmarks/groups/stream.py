"""Many calls on few streams beside as many calls of their own, both through Envoy."""

from benchmarks import load, measure, requests
from benchmarks.load import Load
from benchmarks.measure import Figure, Result
from benchmarks.stage import Options, Stage

TITLE = "ModelStreamInfer of the tiny model: messages of a stream, each a call with its own charge"
_STREAMS = 4
_MESSAGES = 2_000  # of one stream; none waits for an answer
_STREAM, _UNARY = f"{_STREAMS} streams, through Envoy", "unary, through Envoy"


def seconds(options: Options) -> float:
    return 15 + options.turns(2)


def run(stage: Stage) -> Result:
    options, mercat = stage.options, stage.mercat
    request, key = requests.tiny(stage.tiny), mercat.key

    def stream(seconds: float) -> Load:
        return load.grpc(
            mercat.envoy, request, stage.folder, in_flight=_STREAMS, seconds=seconds, method=load.STREAM,
            metadata=key, messages=_MESSAGES,
        )  # fmt: skip

    sides = [
        stage.charged(_STREAM, stream),
        stage.infer(_UNARY, mercat.envoy, request, in_flight=options.in_flight),
    ]
    taken = measure.alternate(sides, seconds=options.seconds, rounds=options.rounds, tell=stage.tell)
    result = Result("stream", TITLE, [measure.summarise(name, rounds) for name, rounds in taken.items()])
    more = measure.ratios(taken[_STREAM], taken[_UNARY])
    result.figures.append(Figure("messages/s on ModelStreamInfer ÷ unary, through Envoy", more, 2))
    result.notes.append(f"the latency of a stream is that of {_MESSAGES:,} messages")
    return result
