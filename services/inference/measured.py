"""Meters that few prices have, and that nothing is counted for otherwise: images, which a signature declares, and what
is known of a call only when it has run, the bytes of its outputs and its time in the engine. Of these there is the most
that they can come to, for which money is held; no call is charged more."""

from collections.abc import Iterable, Mapping

from services.common.tensors import Array, Signature, raw_size

IMAGES, OUTPUT_BYTES, COMPUTE_US = "images", "output_bytes", "compute_us"
MEASURED = frozenset({OUTPUT_BYTES, COMPUTE_US})
SPECIAL = MEASURED | {IMAGES}
Units = tuple[tuple[str, int], ...]


def declared(meters: Iterable[str], signature: Signature, rows: int) -> Units:
    """What is counted before the call runs: every image that it takes or gives, row by row."""
    return ((IMAGES, rows * signature.images),) if IMAGES in meters else ()


def most(
    meters: Iterable[str], signature: Signature, inputs: Mapping[str, Array], rows: int, outputs: Iterable[str],
    seconds: float,
) -> Units:  # fmt: skip
    """The most that can be measured of a call; `rows` of a model that is batched, else 0; `seconds` that it may
    take."""
    found = {OUTPUT_BYTES: signature.most_bytes(inputs, rows, outputs), COMPUTE_US: max(int(seconds * 1e6), 1)}
    return tuple((meter, found[meter]) for meter in meters if meter in MEASURED)


def ran(limits: Units, outputs: Mapping[str, Array], seconds: float) -> Units:
    """What was measured, within the most; an answer from the cache took no time."""
    found = {
        OUTPUT_BYTES: sum(map(raw_size, outputs.values())) if any(m == OUTPUT_BYTES for m, _ in limits) else 0,
        COMPUTE_US: round(seconds * 1e6),
    }
    return tuple((meter, min(found[meter], limit)) for meter, limit in limits)
