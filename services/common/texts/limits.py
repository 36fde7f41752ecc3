"""What one decoder may use of its machine."""

from collections.abc import Mapping
from dataclasses import dataclass, fields


@dataclass(frozen=True, slots=True)
class Limits:
    """`slots`: answers made at a time. `context`: tokens that prompt and answer may be together, where the model takes
    as many. `memory_mb`: MiB of keys and values of the answers under way, `prefix_mb`: of those kept of earlier
    prompts. `waiting`: calls that may wait, `prepared`: prompts that may be kept ready. `level`: priority class of a
    call that names none."""

    threads: int = 1
    slots: int = 16
    context: int = 2048
    memory_mb: int = 2048
    prefix_mb: int = 256
    waiting: int = 256
    prepared: int = 4096
    level: int = 1


def read(parameters: Mapping[str, str]) -> Limits:
    """Those that a Triton configuration's parameters say, by their names. Raises ValueError for what is no number."""
    return Limits(**{f.name: int(parameters[f.name]) for f in fields(Limits) if f.name in parameters})
