"""What one decoder may use of its machine."""

from dataclasses import dataclass


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
