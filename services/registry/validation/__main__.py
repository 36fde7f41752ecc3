"""The child: `python -m services.registry.validation FILE LIMITS`. Writes one report, as JSON, to standard output."""

import json
import os
import sys
from pathlib import Path

from services.registry.validation.confine import confine, start_nothing
from services.registry.validation.report import Limits


def main() -> None:
    limits = Limits(**json.loads(sys.argv[2]))
    confine(limits)
    # What libraries print must not end up in the report.
    report_to = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    try:
        from services.registry.validation.onnx_model import examine

        start_nothing()
        report = examine(Path(sys.argv[1]), limits)
    except MemoryError:
        os._exit(3)
    report_to.write(report.to_json())
    report_to.flush()
    os._exit(0)  # no destructors of whatever was loaded


if __name__ == "__main__":
    main()
