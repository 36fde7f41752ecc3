"""Padding: calls whose declared axes differ in length run together, each filled up to a bucket or to the longest, and
get their own lengths back. Only for models that say so in their settings; to others it would change answers."""

from bisect import bisect_left
from collections.abc import Mapping, Sequence

import numpy as np
from mercat.registry.v1 import registry_pb2

from services.common.tensors import Array, Signature


class Padder:
    """How one version's axes are padded. The first axis is that of rows and never padded."""

    def __init__(self, signature: Signature, padding: Sequence[registry_pb2.AxisPadding]) -> None:
        self._buckets = {p.axis: sorted(p.buckets) for p in padding}
        self._inputs = {s.name: self._axes(s.axes) for s in signature.inputs.values()}
        self._outputs = {s.name: self._axes(s.axes) for s in signature.outputs.values()}
        self._fill = {name: value for p in padding for name, value in p.values.items()}
        self._dtypes = {s.name: s.dtype for s in signature.inputs.values()}

    def _axes(self, axes: Sequence[str]) -> list[tuple[int, str]]:
        return [(i, axis) for i, axis in enumerate(axes) if i and axis in self._buckets]

    def key(self, inputs: Mapping[str, Array]) -> list[object]:
        """What calls must have in common to run together: all lengths, but of those that are padded the bucket."""
        keys: list[object] = []
        for name, a in inputs.items():
            padded = dict(self._inputs[name])
            keys.append(tuple(self._bucket(padded[i], n) if i in padded else n for i, n in enumerate(a.shape) if i))
        return keys

    def _bucket(self, axis: str, length: int) -> int:
        """The length to pad to; -1 where it is that of the batch's longest call."""
        buckets = self._buckets[axis]
        at = bisect_left(buckets, length)
        return buckets[at] if at < len(buckets) else length if buckets else -1

    def together(self, calls: Sequence[Mapping[str, Array]]) -> Mapping[str, Array]:
        """The inputs of several calls as those of one run, rows after rows."""
        return {name: self._stack(name, [call[name] for call in calls]) for name in calls[0]}

    def _stack(self, name: str, arrays: Sequence[Array]) -> Array:
        lengths = list(arrays[0].shape)
        for i, axis in self._inputs[name]:
            longest = max(a.shape[i] for a in arrays)
            bucket = self._bucket(axis, longest)
            lengths[i] = longest if bucket == -1 else bucket
        if all(list(a.shape[1:]) == lengths[1:] for a in arrays):
            return arrays[0] if len(arrays) == 1 else np.concatenate(arrays)
        lengths[0] = sum(a.shape[0] for a in arrays)
        filled = np.full(lengths, self._fill.get(name, 0), self._dtypes[name])
        row = 0
        for a in arrays:
            filled[(slice(row, row + a.shape[0]), *(slice(n) for n in a.shape[1:]))] = a
            row += a.shape[0]
        return filled

    def cut(self, inputs: Mapping[str, Array], outputs: Mapping[str, Array]) -> Mapping[str, Array]:
        """A call's outputs without what padding added to axes of the same names."""
        own = {axis: inputs[name].shape[i] for name, axes in self._inputs.items() for i, axis in axes}
        return {name: self._cut(array, self._outputs[name], own) for name, array in outputs.items()}

    def _cut(self, array: Array, axes: Sequence[tuple[int, str]], own: Mapping[str, int]) -> Array:
        if not axes:
            return array
        cuts = dict(axes)
        return array[tuple(slice(own[cuts[i]]) if i in cuts else slice(None) for i in range(array.ndim))]
