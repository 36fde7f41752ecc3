"""Many keys and models known, and many of them called: two platforms that differ in nothing else, in turn. The client
is `benchmarks.rotate`, which takes the next key and the next model for every call."""

from functools import partial

from benchmarks import crowd, load, measure, requests
from benchmarks.load import Load
from benchmarks.measure import Figure, Result, Round, Side
from benchmarks.mercat import Mercat
from benchmarks.stage import Options, Stage
from tests import graphs

KEYS, MODELS, PEOPLE = 100_000, 10_000, 100
FEW = 10  # keys, models and people of the other platform
TITLE = f"{KEYS:,} keys of {PEOPLE} people and {MODELS:,} models known, beside {FEW} of each"
_CALLED_KEYS, _CALLED_MODELS = 1_000, 100
_SHORTER, _MORE = 2, 5  # turns of the two that call as many
_FEW = f"{FEW} known, all called"
_SAME = f"many known, {FEW} keys and models called"
_MANY = f"many known, {_CALLED_KEYS:,} keys and {_CALLED_MODELS:,} models called"


def seconds(options: Options) -> float:
    return 60 + options.turns(4) + options.turns(2) * (_MORE / _SHORTER - 1)


def run(stage: Stage) -> Result:
    result = Result("scale", TITLE)
    with stage.platform("few") as few, stage.platform("many") as many:
        stage.tell(f"making {KEYS:,} keys and {MODELS:,} models …")
        few_keys, few_models = _fill(few, FEW, FEW, FEW)
        keys, models = _fill(many, KEYS, PEOPLE, MODELS)
        first = _side(stage, _FEW, few, few_keys, few_models)
        turn = partial(
            measure.alternate, seconds=stage.options.seconds, rounds=stage.options.rounds, tell=stage.tell, warm_up=3
        )
        # In short turns, and many: the two differ by less than the machine does from one ten seconds to the next.
        known = turn(
            [first, _side(stage, _SAME, many, keys[:FEW], models[:FEW])], seconds=stage.options.seconds / _SHORTER,
            rounds=stage.options.rounds * _MORE,
        )  # fmt: skip
        # Apart: what is done about a thousand callers goes on for some seconds after their calls.
        called = turn([first, _side(stage, _MANY, many, keys[:_CALLED_KEYS], models[:_CALLED_MODELS])])
    taken = {**known, _MANY: called[_MANY]}
    result.rows = [measure.summarise(name, rounds) for name, rounds in taken.items()]
    name = f"calls/s with {KEYS:,} keys and {MODELS:,} models known ÷ with {FEW}"
    result.figures.append(Figure(name, measure.ratios(known[_SAME], known[_FEW]), 0.95))
    share = Figure("", measure.ratios(called[_MANY], called[_FEW]), 1).value
    result.notes.append(
        f"with {_CALLED_KEYS:,} keys and {_CALLED_MODELS:,} models called in turn {share:.2f} of the calls/s with "
        f"{FEW}: the models share one file and are loaded each on its own, so that few rows meet in a batch"
    )
    return result


def _fill(mercat: Mercat, keys: int, people: int, models: int) -> tuple[list[str], list[str]]:
    model = mercat.publish(graphs.tiny(), batch=64)
    return crowd.add_keys(mercat, keys, people), crowd.add_models(mercat, model, models)


def _side(stage: Stage, name: str, mercat: Mercat, keys: list[str], models: list[str]) -> Side:
    bodies = [requests.tiny(model) for model in models]

    def call(seconds: float) -> Load:
        return load.rotating(
            mercat.envoy, stage.folder, keys=keys, requests=bodies, in_flight=stage.options.in_flight, seconds=seconds
        )

    def run(seconds: float) -> Round:
        return mercat.turn("client", partial(call, seconds))

    return Side(name, run)
