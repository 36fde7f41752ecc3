"""The groups of a run, in their order. Each module has TITLE, `seconds(options)`: about how long it takes, and
`run(stage)`, which answers a Result."""

from types import ModuleType

from benchmarks.groups import memory, metering, minilm, rest, scale, search, stream, streaming, tiny

_ORDER = (tiny, minilm, rest, stream, streaming, scale, metering, search, memory)
GROUPS: dict[str, ModuleType] = {module.__name__.rpartition(".")[2]: module for module in _ORDER}
