"""The same call as JSON over HTTP and as protobuf over gRPC, both through Envoy, beside a server of JSON alone."""

import json
from contextlib import ExitStack
from functools import partial

from google.protobuf import json_format

from benchmarks import load, measure, processes, requests, servers
from benchmarks.load import Load
from benchmarks.measure import Figure, Result, Round, Side
from benchmarks.peers import Server
from benchmarks.stage import Options, Stage

TITLE = "REST and gRPC through Envoy: Predict of the tiny model"
_REST, _GRPC = "REST, through Envoy", "gRPC, through Envoy"
_SHORTER, _MORE = 2, 3  # turns of the two that are compared


def seconds(options: Options) -> float:
    return 15 + options.turns(2) + options.turns(2) * _MORE / _SHORTER


def run(stage: Stage) -> Result:
    options, mercat = stage.options, stage.mercat
    result = Result("rest", TITLE)
    request, key = requests.predict(stage.tiny), mercat.key
    body = json_format.MessageToDict(request)
    url = f"{mercat.platform.rest}/v1/models/{body.pop('model')}:predict"
    body["inputs"][0]["shape"] = [1, 4]  # as a person would write it; protobuf's own JSON has int64 in quotes
    posted = json.dumps(body).encode()

    def rest(seconds: float) -> Load:
        return load.http(url, posted, stage.folder, in_flight=options.in_flight, seconds=seconds, headers=key)

    def grpc(seconds: float) -> Load:
        return load.grpc(
            mercat.envoy, request.SerializeToString(), stage.folder, in_flight=options.in_flight, seconds=seconds,
            method=load.PREDICT, metadata=key,
        )  # fmt: skip

    # In short turns, and many: the two differ by less than the machine does from one ten seconds to the next.
    taken = measure.alternate(
        [stage.charged(_REST, rest, generator="bombardier"), stage.charged(_GRPC, grpc)],
        seconds=options.seconds / _SHORTER, rounds=options.rounds * _MORE, tell=stage.tell,
    )  # fmt: skip
    kept = measure.ratios(taken[_REST], taken[_GRPC])
    name = "gRPC ModelInfer, through Envoy"
    sides = [stage.infer(name, mercat.envoy, requests.tiny(stage.tiny), in_flight=options.in_flight)]
    with ExitStack() as stack:
        start = partial(servers.litserve, stage.tiny_file, stage.folder, stage.tell, threads=options.threads)
        if server := stage.peer("LitServe", start, result.notes):
            sides.append(_posted(stage, stack.enter_context(server)))
        taken |= measure.alternate(sides, seconds=options.seconds, rounds=options.rounds, tell=stage.tell)
    result.rows = [measure.summarise(name, rounds) for name, rounds in taken.items()]
    result.figures.append(Figure("REST through Envoy ÷ gRPC through Envoy, the same call", kept, 0.7))
    return result


def _posted(stage: Stage, server: Server) -> Side:
    body = json.dumps({"x": [[1.0, 1.0, 1.0, 1.0]]}).encode()

    def run(seconds: float) -> Round:
        pids = {server.name: server.pid}
        before = processes.cpu_seconds(pids)
        url = f"http://{server.target}/predict"
        got = load.http(url, body, stage.folder, in_flight=stage.options.in_flight, seconds=seconds)
        took = processes.spent(before, processes.cpu_seconds(pids))
        return Round(got, took | {"bombardier": got.generator_seconds})

    return Side("LitServe, bare", run)
