"""The child: `python -m services.registry.validation FILE MADE [CASES] LIMITS`. Writes one report, as JSON, to standard
output, and where a file cannot be served as it is, what can be to MADE. With CASES the file is one that a converter
made, and has to give what its source gave there."""

import errno
import json
import os
import sys
from pathlib import Path

from services.registry.validation.confine import confine, start_nothing
from services.registry.validation.report import Limits


def main() -> None:
    limits = Limits(**json.loads(sys.argv[-1]))
    confine(limits)
    # What libraries print must not end up in the report.
    report_to = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    try:
        from services.registry.validation.examine import examine

        start_nothing()
        file, made, *cases = map(Path, sys.argv[1:-1])
        report = examine(file, made, limits, *cases)
    except MemoryError:
        os._exit(3)
    except OSError as e:
        if e.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        os._exit(4)
    report_to.write(report.to_json())
    report_to.flush()
    os._exit(0)  # no destructors of whatever was loaded


if __name__ == "__main__":
    main()
