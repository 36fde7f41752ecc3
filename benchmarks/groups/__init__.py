"""The groups of a run, in their order. Each module has TITLE, `seconds(options)`: about how long it takes, and
`run(stage)`."""

from types import ModuleType

from benchmarks.groups import tiny

GROUPS: dict[str, ModuleType] = {module.__name__.rpartition(".")[2]: module for module in (tiny,)}
