"""Small models of PyTorch and TensorFlow, made by the interpreter that has them: `python -m tests.frameworks FOLDER`.
Some come with inputs that their framework was given and what it gave: `<name>.npz` of `in.x` and `out.0`, `out.1`."""

import io
import os
import subprocess
import sys
import warnings
import zipfile
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
ROWS = np.random.default_rng(7).standard_normal((5, 4)).astype(np.float32)
# The datatypes that each echoes.
TORCH_ECHOED = ("f16", "f32", "f64", "i8", "i16", "i32", "i64", "u8", "bool")
ECHOED = (*TORCH_ECHOED, "u16", "u32", "u64")


@cache
def made(python: str, folder: Path) -> Path:
    """All of them, in a folder: scripted.pt, dropout.pt, writer.pt, echo.pt, lookup.pt, checkpoint.pt, evil.pt,
    program.pt2, pickled.pt2, and the folders saved_model, reader, lookup and, by their axes, echo0 to echo2."""
    done = subprocess.run([python, "-m", "tests.frameworks", str(folder)], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder


class _Evil:
    """Ends the process that unpickles it."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os._exit, (9,)


def _torch(folder: Path) -> None:
    import torch

    torch.manual_seed(7)

    class Two(torch.nn.Module):
        """Two outputs, one of them a loop that tracing would freeze."""

        def __init__(self) -> None:
            super().__init__()
            self.hidden, self.last = torch.nn.Linear(4, 8), torch.nn.Linear(8, 2)

        def forward(self, x: torch.Tensor, scale: torch.Tensor | None = None) -> tuple[torch.Tensor, torch.Tensor]:
            h = torch.relu(self.hidden(x))
            for _ in range(3):
                h = h * 0.5 + 0.1
            return torch.softmax(self.last(h), -1), h.sum(-1)

    class One(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.convolution, self.last = torch.nn.Conv1d(4, 3, 1), torch.nn.Linear(3, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.tanh(self.last(self.convolution(x.unsqueeze(-1)).squeeze(-1)))

    class Dropping(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.nn.functional.dropout(x, 0.5, True)

    class Writing(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            torch.save(x, "/tmp/harm")
            return x

    class Echo(torch.nn.Module):
        def forward(
            self, f16: torch.Tensor, f32: torch.Tensor, f64: torch.Tensor, i8: torch.Tensor, i16: torch.Tensor,
            i32: torch.Tensor, i64: torch.Tensor, u8: torch.Tensor, truth: torch.Tensor,
        ) -> list[torch.Tensor]:  # fmt: skip
            return [f16, f32, f64, i8, i16, i32, i64, u8, truth]

    class Lookup(torch.nn.Module):
        """Squares of 0 to 3; it refuses every other index."""

        def forward(self, index: torch.Tensor) -> torch.Tensor:
            return torch.tensor([0, 1, 4, 9])[index]

    x = torch.from_numpy(ROWS)
    two, one = Two().eval(), One().eval()
    torch.jit.script(two).save(str(folder / "scripted.pt"))
    torch.jit.script(Dropping()).save(str(folder / "dropout.pt"))
    torch.jit.script(Writing()).save(str(folder / "writer.pt"))
    torch.jit.script(Echo()).save(str(folder / "echo.pt"))
    torch.jit.script(Lookup()).save(str(folder / "lookup.pt"))
    program = torch.export.export(one, (x,), dynamic_shapes={"x": {0: torch.export.Dim("rows", max=4096)}})
    torch.export.save(program, folder / "program.pt2")
    torch.save(two.state_dict(), folder / "checkpoint.pt")
    evil = io.BytesIO()
    torch.save(_Evil(), evil)
    (folder / "evil.pt").write_bytes(evil.getvalue())
    with zipfile.ZipFile(folder / "program.pt2") as source, zipfile.ZipFile(folder / "pickled.pt2", "w") as target:
        for info in source.infolist():
            own = info.filename.endswith("sample_inputs/model.pt")
            target.writestr(info.filename, evil.getvalue() if own else source.read(info))
    with torch.no_grad():
        _save(folder / "scripted.npz", [t.numpy() for t in two(x)])
        _save(folder / "program.npz", [one(x).numpy()])


def _tensorflow(folder: Path) -> None:
    import tensorflow as tf

    rng = np.random.default_rng(9)

    class Model(tf.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weights = tf.Variable(rng.standard_normal((4, 3)).astype(np.float32))

        @tf.function(input_signature=[tf.TensorSpec([None, 4], tf.float32, name="x")])
        def serve(self, x: Any) -> dict[str, Any]:
            h = tf.nn.elu(x @ self.weights)
            return {"scores": tf.nn.softmax(h), "best": tf.argmax(h, -1)}

    class Reading(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, name="x")])
        def serve(self, x: Any) -> dict[str, Any]:
            return {"y": x + tf.cast(tf.strings.length(tf.io.read_file("/etc/hostname")), tf.float32)}

    class Lookup(tf.Module):
        """Squares of 0 to 3; it refuses every other index."""

        @tf.function(input_signature=[tf.TensorSpec([None], tf.int64, name="index")])
        def serve(self, index: Any) -> dict[str, Any]:
            return {"square": tf.gather(tf.constant([0, 1, 4, 9], tf.int64), index)}

    class Echo(tf.Module):
        def __init__(self, axes: int) -> None:
            super().__init__()
            specs = [tf.TensorSpec([None] * axes, _dtype(name), name=name) for name in ECHOED]
            self.serve = tf.function(
                lambda *given: {f"{n}_out": tf.identity(t) for n, t in zip(ECHOED, given, strict=True)}, specs
            )

    model = Model()
    models: dict[str, Any] = {"saved_model": model, "reader": Reading(), "lookup": Lookup()}
    models |= {f"echo{axes}": Echo(axes) for axes in range(3)}
    for name, made in models.items():
        tf.saved_model.save(made, str(folder / name), signatures={"serving_default": made.serve})
    given = model.serve(tf.constant(ROWS))
    _save(folder / "saved_model.npz", [given["best"].numpy(), given["scores"].numpy()])


def _dtype(name: str) -> np.dtype[Any]:
    """Of an echoed input."""
    return np.dtype(bool if name == "bool" else f"{name[0]}{int(name[1:]) // 8}")


def _save(path: Path, outputs: list[Any]) -> None:
    np.savez(path, **{"in.x": ROWS} | {f"out.{i}": array for i, array in enumerate(outputs)})


if __name__ == "__main__":
    target = Path(sys.argv[1])
    target.mkdir(parents=True, exist_ok=True)
    warnings.simplefilter("ignore")
    _torch(target)
    _tensorflow(target)
