"""What the processes hold after many calls: a fresh Mercat, unary calls through Envoy, memory read along the way."""

from benchmarks import load, measure, processes, requests
from benchmarks.measure import Figure, Result, Round
from benchmarks.stage import Options, Stage
from tests import graphs

TITLE = "Memory along many unary calls through Envoy"
_FIRST = 10_000
_STEPS = 20
_PARTS = ("worker-0", "control")


def seconds(options: Options) -> float:
    return 20 + options.calls / 2_500


def run(stage: Stage) -> Result:
    calls = stage.options.calls
    result = Result("memory", TITLE, curves={part: [] for part in _PARTS})
    with stage.platform("memory") as mercat:
        model = mercat.publish(graphs.tiny(), batch=64)
        pids = mercat.platform.pids()

        def go_on(more: int) -> Round:
            return mercat.turn("ghz", lambda: load.grpc(
                mercat.envoy, requests.tiny(model), stage.folder, in_flight=stage.options.in_flight, calls=more,
                metadata=mercat.key,
            ))  # fmt: skip

        taken = []
        for more in [_FIRST, *_steps(calls - _FIRST)]:
            taken.append(go_on(more))
            for part in _PARTS:
                result.curves[part].append((mercat.calls, processes.memory_mib(pids[part])[0]))
            held = ", ".join(f"{part} {result.curves[part][-1][1]:.1f} MiB" for part in _PARTS)
            stage.tell(f"{mercat.calls:9,} calls: {held}  {measure.rate(taken[-1])}")
    result.rows.append(measure.summarise(f"unary, through Envoy, {calls:,} calls", taken))
    for part in _PARTS:
        (least, at_first), *_, (most, at_last) = result.curves[part]
        result.notes.append(
            f"{part}: {at_first:.1f} MiB of its own after {least:,.0f} calls, {at_last:.1f} after {most:,.0f}"
        )
    grown = result.curves["worker-0"]
    name = f"memory of the worker (USS) after {grown[-1][0]:,.0f} calls ÷ after {grown[0][0]:,.0f}"
    result.figures.append(Figure(name, [grown[-1][1] / grown[0][1]], 1.05, at_most=True))
    return result


def _steps(calls: int) -> list[int]:
    each, rest = divmod(calls, _STEPS)
    return [each + (1 if number < rest else 0) for number in range(_STEPS)]
