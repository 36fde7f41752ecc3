"""What every child does around its work: gives up what it may not use, and says one report, as JSON."""

import errno
import json
import os
import sys
from collections.abc import Callable

from services.registry.validation.confine import confine
from services.registry.validation.report import Limits, Report


def answer(work: Callable[[list[str], Limits], Report]) -> None:
    """Ends the process. `work` takes its arguments, of which its limits were the last, and imports what it needs
    itself, once the process is bounded."""
    limits = Limits(**json.loads(sys.argv[-1]))
    confine(limits)
    # What libraries print must not end up in the report.
    report_to = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    try:
        report = work(sys.argv[1:-1], limits)
    except MemoryError:
        os._exit(3)
    except OSError as e:
        if e.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        os._exit(4)
    report_to.write(report.to_json())
    report_to.flush()
    os._exit(0)  # no destructors of whatever was loaded
