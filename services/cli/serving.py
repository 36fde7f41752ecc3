"""The options of `mercat push` that say how a version is served, as InferenceSettings."""

from typing import Annotated

import typer
from mercat.registry.v1 import registry_pb2

PLACEMENTS = {
    "embedded": registry_pb2.PLACEMENT_EMBEDDED,
    "triton": registry_pb2.PLACEMENT_TRITON,
    "triton-or-embedded": registry_pb2.PLACEMENT_TRITON_OR_EMBEDDED,
}

MaxBatchSize = Annotated[int, typer.Option(min=0, help="Rows in one engine run; 0: not batched.")]
MaxQueueDelay = Annotated[int, typer.Option(min=0, help="How long a batch that is not full waits.")]
Timeout = Annotated[int, typer.Option(min=0, help="The longest a call may take; 0: 30,000.")]
PreferredBatch = Annotated[
    list[int] | None, typer.Option(min=1, metavar="ROWS", help="A batch that starts at once. Repeatable.")
]
MaxQueueSize = Annotated[int, typer.Option(min=0, help="Rows that may wait; 0: as the operator set.")]
QueueTimeout = Annotated[int, typer.Option(min=0, help="The longest a call may wait; 0: its deadline.")]
PriorityLevels = Annotated[int, typer.Option(min=0, max=10, help="Classes of calls, 1 first; 0: all alike.")]
DefaultPriority = Annotated[int, typer.Option(min=0, max=10, help="Of calls that name none; 0: the middle.")]
Placement = Annotated[str, typer.Option(metavar="ENGINE", help=f"{', '.join(PLACEMENTS)}.")]
CacheTtl = Annotated[
    int | None, typer.Option(min=0, metavar="SECONDS", help="Answer equal inputs from memory; 0: for an hour.")
]
CachePrice = Annotated[int, typer.Option(min=0, max=100, metavar="PERCENT", help="What such an answer costs.")]
Pad = Annotated[
    list[str] | None,
    typer.Option(metavar="AXIS[=N,N…]", help="An axis that may be padded, to these lengths. Repeatable."),
]
PadValue = Annotated[
    list[str] | None,
    typer.Option(metavar="INPUT=NUMBER", help="What an input is padded with, instead of 0. Repeatable."),
]
FallbackVersion = Annotated[str, typer.Option(help="Answers while this version keeps failing.")]


def placement(name: str) -> "registry_pb2.Placement.ValueType":
    """Raises BadParameter for a word that is none."""
    if name not in PLACEMENTS:
        raise typer.BadParameter(f"{name!r} is no engine; choose {', '.join(PLACEMENTS)}", param_hint="--placement")
    return PLACEMENTS[name]


def cache(ttl: int | None, percent: int) -> registry_pb2.ResponseCache | None:
    """None: answers are not kept."""
    if ttl is None:
        if percent:
            raise typer.BadParameter("there is no cache without --cache-ttl", param_hint="--cache-price")
        return None
    return registry_pb2.ResponseCache(ttl_seconds=ttl, hit_price_percent=percent)


def padding(axes: list[str], values: list[str]) -> list[registry_pb2.AxisPadding]:
    """`sequence=64,128` or `sequence`; the values hold for every axis. Raises BadParameter."""
    filled: dict[str, float] = {}
    for text in values:
        name, _, number = text.partition("=")
        try:
            filled[name] = float(number)
        except ValueError:
            raise typer.BadParameter(f"{text!r} is no INPUT=NUMBER", param_hint="--pad-value") from None
    if filled and not axes:
        raise typer.BadParameter("nothing is padded without --pad", param_hint="--pad-value")
    made: list[registry_pb2.AxisPadding] = []
    for text in axes:
        axis, _, lengths = text.partition("=")
        try:
            buckets = sorted({int(n) for n in lengths.split(",")}) if lengths else []
        except ValueError:
            raise typer.BadParameter(f"{text!r} is no AXIS=N,N…", param_hint="--pad") from None
        made.append(registry_pb2.AxisPadding(axis=axis, buckets=buckets, values=filled))
    return made
