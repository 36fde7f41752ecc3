"""A model that is next to no work, so that all the time is the servers': many calls in flight, then one."""

from contextlib import ExitStack
from functools import partial

from benchmarks import measure, requests, servers
from benchmarks.load import LoadError
from benchmarks.measure import Figure, Result
from benchmarks.peers import PeerError, Server
from benchmarks.stage import Options, Stage

TITLE = "A tiny model (4 → 64 → 4), one row per call"
_ECHO, _WORKER, _ENVOY = "bare grpc.aio echo", "Mercat, direct to the worker", "Mercat, through Envoy"


def seconds(options: Options) -> float:
    return 40 + options.turns(10)


def run(stage: Stage) -> Result:
    options, mercat = stage.options, stage.mercat
    result = Result("tiny", TITLE)
    with ExitStack() as stack:
        peers: dict[str, Server] = {}
        if server := stage.peer("MLServer", partial(_faster, stage), result.notes):
            peers["MLServer, bare"] = stack.enter_context(server)
        start = partial(servers.triton, stage.tiny_file, stage.folder, threads=options.threads, batch=64)
        if server := stage.peer("Triton", start, result.notes):
            peers["Triton, bare"] = stack.enter_context(server)
        for in_flight, suffix in ((options.in_flight, ""), (1, ", 1 in flight")):
            sides = [
                stage.bare(_ECHO, stage.echo, requests.tiny("model"), in_flight=in_flight),
                stage.infer(_WORKER, mercat.worker, requests.tiny(stage.tiny), in_flight=in_flight),
                stage.infer(_ENVOY, mercat.envoy, requests.tiny(stage.tiny), in_flight=in_flight),
                *(stage.bare(n, s, requests.tiny("model"), in_flight=in_flight) for n, s in peers.items()),
            ]
            stage.tell(f"{in_flight} in flight")
            taken = measure.alternate(sides, seconds=options.seconds, rounds=options.rounds, tell=stage.tell)
            result.rows += [measure.summarise(name + suffix, rounds) for name, rounds in taken.items()]
            if in_flight == 1:
                added = measure.differences(taken[_ENVOY], taken[_ECHO])
                name = "p50 added through Envoy at 1 in flight, durable metering on"
                result.figures.append(Figure(name, added, 1.5, "ms", at_most=True))
                continue
            if "MLServer, bare" in peers:
                faster = measure.ratios(taken[_ENVOY], taken["MLServer, bare"])
                name = f"through Envoy, everything on, {in_flight} in flight ÷ MLServer bare"
                result.figures.append(Figure(name, faster, 2, aim=3))
            kept = measure.ratios(taken[_WORKER], taken[_ECHO])
            result.figures.append(Figure("direct to one worker ÷ bare grpc.aio echo", kept, 0.75))
    return result


def _faster(stage: Stage) -> Server:
    """MLServer with the faster of its two ways: inference in the process that serves, or in one beside it."""
    rates: dict[int, float] = {}
    start = partial(servers.mlserver, stage.tiny_file, stage.folder, stage.tell, threads=stage.options.threads)
    for workers in (0, 1):
        try:
            with start(workers=workers) as server:
                side = stage.bare("", server, requests.tiny("model"), in_flight=stage.options.in_flight)
                side.run(1)
                rates[workers] = side.run(3).load.per_second
            stage.tell(f"MLServer with parallel_workers {workers}: {rates[workers]:,.0f}/s")
        except (LoadError, PeerError) as error:
            stage.tell(f"MLServer with parallel_workers {workers}: {error}")
    if not rates:
        raise PeerError("it answers with neither 0 nor 1 parallel workers")
    return start(workers=max(rates, key=lambda w: rates[w]))
