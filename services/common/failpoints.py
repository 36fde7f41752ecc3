"""Places where a test may kill the process: `MERCAT_FAILPOINTS=inference.after_engine=7` ends it, as SIGKILL would,
at the seventh pass. Without the variable a pass costs one comparison."""

import os
import signal

_LEFT = {
    name: int(count or 1)
    for name, _, count in (part.partition("=") for part in os.environ.get("MERCAT_FAILPOINTS", "").split(",") if part)
}


def passing(name: str) -> None:
    """Marks the place `name`."""
    if _LEFT and name in _LEFT:
        _LEFT[name] -= 1
        if _LEFT[name] <= 0:
            os.kill(os.getpid(), signal.SIGKILL)
