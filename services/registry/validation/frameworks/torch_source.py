"""TorchScript modules and torch.export programs, run and converted by PyTorch."""

import re
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from services.registry.validation.frameworks.cases import Array, Case, Feeds
from services.registry.validation.report import Refused, Tensor

OPSET = 18


def datatypes() -> dict[Any, str]:
    """KServe's names of PyTorch's types."""
    import torch

    return {
        torch.bool: "BOOL", torch.int8: "INT8", torch.int16: "INT16", torch.int32: "INT32", torch.int64: "INT64",
        torch.uint8: "UINT8", torch.float16: "FP16", torch.float32: "FP32", torch.float64: "FP64",
    }  # fmt: skip


def _tensors(given: Any) -> list[Any]:
    """The tensors of an answer, in their order, however they are grouped."""
    import torch

    if isinstance(given, torch.Tensor):
        return [given]
    if isinstance(given, dict):
        given = list(given.values())
    if isinstance(given, list | tuple):
        return [tensor for part in given for tensor in _tensors(part)]
    raise Refused("NOT_A_TENSOR", f"it gives a {type(given).__name__}; only tensors can be sent")


def _arrays(given: Any) -> list[Array]:
    return [np.asarray(tensor.detach().resolve_conj().resolve_neg().contiguous().numpy()) for tensor in _tensors(given)]


class ScriptSource:
    """A TorchScript archive, which names its arguments and nothing more: types, shapes and, if they are to have other
    names than `output__0`, …, outputs are its publisher's word."""

    def __init__(self, path: Path, inputs: Sequence[Tensor], outputs: Sequence[str]) -> None:
        import torch

        if not inputs:
            text = "TorchScript does not say what it takes; declare every input, such as --input x=FP32[-1,4]"
            raise Refused("SIGNATURE_MISSING", text)
        self._module = torch.jit.load(str(path), map_location="cpu").eval()
        arguments = self._module.forward.schema.arguments[1:]
        self.inputs = _in_order(arguments, inputs)
        self._shortened = len(arguments) > len(inputs)
        self.outputs = tuple(outputs)

    def run(self, feeds: Feeds) -> list[Array]:
        import torch

        with torch.no_grad():
            given = _arrays(self._module(*(torch.from_numpy(feeds[spec.name].copy()) for spec in self.inputs)))
        self.outputs = self.outputs or names(len(given))
        return given

    def export(self, cases: Sequence[Case], path: Path) -> None:
        import torch

        feeds, _ = cases[-1]
        axes = {spec.name: _open(spec) for spec in self.inputs}
        for i, name in enumerate(self.outputs):
            shapes = [given[i].shape for _, given in cases]
            varied = [
                len({shape[axis] for shape in shapes if axis < len(shape)}) > 1 for axis in range(len(shapes[-1]))
            ]
            axes[name] = {axis: _axis(name, axis) for axis, several in enumerate(varied) if several}
        args = tuple(torch.from_numpy(feeds[spec.name].copy()) for spec in self.inputs)
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")  # this exporter is the one that takes TorchScript, and is called old
            module = self._module
            if self._shortened:  # what is left out must not be an argument; loops and branches inside stay as they are

                class Call(torch.nn.Module):  # type: ignore[misc,unused-ignore]
                    def __init__(self) -> None:
                        super().__init__()
                        self.called = module

                    def forward(self, *given: Any) -> Any:
                        return self.called(*given)

                module = torch.jit.trace(Call(), args, check_trace=False)
            torch.onnx.export(
                module, args, str(path), input_names=[spec.name for spec in self.inputs],
                output_names=list(self.outputs), dynamic_axes=axes, opset_version=OPSET, dynamo=False,
            )  # fmt: skip


def names(count: int) -> tuple[str, ...]:
    """Of outputs that have none, as Triton wants PyTorch's."""
    return tuple(f"output__{i}" for i in range(count))


def _open(spec: Tensor) -> dict[int, str]:
    return {axis: _axis(spec.name, axis) for axis, n in enumerate(spec.shape) if n < 0}


def _axis(name: str, axis: int) -> str:
    return "batch" if axis == 0 else f"{name}_{axis}"


def _in_order(arguments: Sequence[Any], inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """Inputs as `forward` takes them. They are called as its arguments, or `<any>__<place>`: Triton's rule."""
    places = {argument.name: i for i, argument in enumerate(arguments)}
    for i in range(len(arguments)):
        places |= {spec.name: i for spec in inputs if re.fullmatch(rf"\w+__{i}", spec.name)}
    ordered = sorted(inputs, key=lambda spec: places.get(spec.name, len(arguments)))
    needed = sum(not argument.has_default_value() for argument in arguments)
    if [places.get(spec.name) for spec in ordered] != list(range(len(inputs))) or len(inputs) < needed:
        takes = ", ".join(argument.name for argument in arguments)
        text = f"forward takes {takes}; call the inputs so, or input__0, input__1, … by their places"
        raise Refused("SIGNATURE_DIFFERS", text)
    for argument, spec in zip(arguments, ordered, strict=False):
        if str(argument.type) not in ("Tensor", "Optional[Tensor]"):
            raise Refused("NOT_A_TENSOR", f"forward takes a {argument.type}; only tensors can be sent", spec.name)
    return tuple(ordered)


class ProgramSource:
    """A torch.export archive, which says itself what it takes."""

    def __init__(self, path: Path, outputs: Sequence[str]) -> None:
        import torch

        self._program = torch.export.load(str(path))
        signature = self._program.graph_signature
        values = {node.name: node.meta.get("val") for node in self._program.graph.nodes if node.op == "placeholder"}
        self._symbols: dict[str, str] = {}
        self.inputs = tuple(self._spec(name, values.get(name)) for name in signature.user_inputs)
        count = len(signature.user_outputs)
        self.outputs = tuple(outputs) or names(count)
        if len(self.outputs) != count:
            text = f"it gives {count} tensors; {len(self.outputs)} are declared"
            raise Refused("SIGNATURE_DIFFERS", text)
        self._module = self._program.module()

    def _spec(self, name: Any, value: Any) -> Tensor:
        import torch

        if not isinstance(name, str) or not isinstance(value, torch.Tensor):
            raise Refused("NOT_A_TENSOR", "it takes something that is no tensor; only tensors can be sent", str(name))
        shape = tuple(n if isinstance(n, int) else -1 for n in value.shape)
        for axis, n in enumerate(value.shape):
            if not isinstance(n, int):
                self._symbols.setdefault(str(n), _axis(name, axis))
        return Tensor(name, datatypes().get(value.dtype, str(value.dtype)), shape, ("",) * len(shape))

    def run(self, feeds: Feeds) -> list[Array]:
        import torch
        from torch.utils import _pytree

        flat = [torch.from_numpy(feeds[spec.name].copy()) for spec in self.inputs]
        args, kwargs = _pytree.tree_unflatten(flat, self._program.call_spec.in_spec)
        with torch.no_grad():
            return _arrays(self._module(*args, **kwargs))

    def export(self, cases: Sequence[Case], path: Path) -> None:
        import onnx
        import torch

        made = torch.onnx.export(
            self._program, (), dynamo=True, opset_version=OPSET, external_data=False, verbose=False,
            input_names=[spec.name for spec in self.inputs], output_names=list(self.outputs),
        )  # fmt: skip
        model = made.model_proto
        self._rename_axes(model.graph)
        onnx.save(model, str(path))

    def _rename_axes(self, graph: Any) -> None:
        """PyTorch's symbols of lengths (`s77`) say nothing to a reader."""
        for value in (*graph.input, *graph.output, *graph.value_info):
            for dim in value.type.tensor_type.shape.dim:
                if dim.HasField("dim_param"):
                    dim.dim_param = re.sub(r"\w+", lambda m: self._symbols.get(m[0], m[0]), dim.dim_param)
