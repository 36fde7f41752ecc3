"""The child: `python -m services.registry.validation FILE MADE [CASES] LIMITS`. Writes one report, as JSON, to standard
output, and where a file cannot be served as it is, what can be to MADE. With CASES the file is one that a converter
made, and has to give what its source gave there."""

from pathlib import Path

from services.registry.validation.answering import answer
from services.registry.validation.report import Limits, Report


def _examine(arguments: list[str], limits: Limits) -> Report:
    from services.registry.validation.confine import start_nothing
    from services.registry.validation.examine import examine

    start_nothing()
    file, made, *cases = map(Path, arguments)
    return examine(file, made, limits, *cases)


if __name__ == "__main__":
    answer(_examine)
