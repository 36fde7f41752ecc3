"""Whether what was made of a model gives what its source gave."""

from pathlib import Path
from typing import Any

import numpy as np

from services.registry.validation.frameworks import cases
from services.registry.validation.frameworks.cases import Array
from services.registry.validation.report import Refused

# An element of `a` may be `b` where |a - b| ≤ absolute + relative·|b|, by the bytes of a float; other types are equal.
# Sums in another order differ by this and no more; a wrong operator differs by far.
TOLERANCES = {2: (1e-2, 1e-2), 4: (1e-4, 1e-3), 8: (1e-6, 1e-5)}


def compare(session: Any, path: Path) -> float:
    """Runs an ONNX session on the cases at `path`. Answers the largest difference of any element of a float.

    Raises Refused, OSError, ValueError."""
    largest = 0.0
    for number, (feeds, expected) in enumerate(cases.load(path)):
        try:
            given = session.run(list(expected), feeds)
        except Exception as e:
            if isinstance(e, MemoryError):
                raise
            text = f"it does not run on inputs that its source takes: {cases.first_line(e)}"
            raise Refused("OUTPUTS_DIFFER", text, _where(number)) from None
        for (name, wanted), array in zip(expected.items(), given, strict=True):
            largest = max(largest, _difference(name, wanted, array, number))
    return largest


def _difference(name: str, wanted: Array, given: Array, number: int) -> float:
    if (wanted.dtype, wanted.shape) != (given.dtype, given.shape):
        text = f"its source gives {wanted.dtype} {list(wanted.shape)}, it gives {given.dtype} {list(given.shape)}"
        raise Refused("OUTPUTS_DIFFER", f"{text}, {_where(number)}", name)
    if wanted.dtype.kind != "f":
        if not np.array_equal(wanted, given):
            raise Refused("OUTPUTS_DIFFER", f"it gives other values than its source, {_where(number)}", name)
        return 0.0
    absolute, relative = TOLERANCES[wanted.dtype.itemsize]
    with np.errstate(invalid="ignore", over="ignore"):  # infinities are told apart below
        far = np.abs(wanted.astype(np.float64) - given.astype(np.float64))
    far[(wanted == given) | (np.isnan(wanted) & np.isnan(given))] = 0.0
    largest = float(np.max(far, initial=0.0))
    if not np.all(far <= absolute + relative * np.abs(wanted.astype(np.float64))):
        text = f"it gives values that are up to {largest:.3g} away from its source's, {_where(number)}"
        raise Refused("OUTPUTS_DIFFER", text, name)
    return largest


def _where(number: int) -> str:
    return f"case {number + 1}"
