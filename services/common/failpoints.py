"""Places where a test may kill the process: `MERCAT_FAILPOINTS=inference.after_engine=7` ends it, as SIGKILL would, at
the seventh pass, once in the life of a home. Without the variable a pass costs one comparison."""

import os
import signal
from pathlib import Path

_LEFT = {
    name: int(count or 1)
    for name, _, count in (part.partition("=") for part in os.environ.get("MERCAT_FAILPOINTS", "").split(",") if part)
}


def passing(name: str) -> None:
    """Marks the place `name`."""
    if _LEFT and name in _LEFT:
        _LEFT[name] -= 1
        if _LEFT[name] == 0:
            try:  # the process that takes this one's place must live
                (Path(os.environ["MERCAT_HOME"]) / "run" / f"failpoint.{name}").touch(exist_ok=False)
            except FileExistsError:
                return
            os.kill(os.getpid(), signal.SIGKILL)
