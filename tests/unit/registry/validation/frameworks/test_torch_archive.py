"""What is refused of PyTorch's archives before PyTorch sees them."""

import io
import json
import zipfile
from pathlib import Path

import pytest

from services.registry.validation.frameworks.archives import Form
from services.registry.validation.frameworks.torch_archive import check
from services.registry.validation.report import Refused


def archive(folder: Path, files: dict[str, bytes]) -> Path:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as made:
        for name, data in files.items():
            made.writestr(f"m/{name}", data)
    path = folder / "model"
    path.write_bytes(buffer.getvalue())
    return path


def script(folder: Path, code: str) -> Path:
    nothing = b"\x80\x02)."
    return archive(folder, {"constants.pkl": nothing, "data.pkl": nothing, "code/__torch__.py": code.encode()})


def program(folder: Path, graph: object, **files: bytes) -> Path:
    return archive(folder, {"archive_format": b"pt2", "models/model.json": json.dumps(graph).encode()} | files)


GOOD = """class M(Module):
  def forward(self: __torch__.M, x: Tensor) -> Tensor:
    saved = torch.relu(torch.add(x, x))
    return ops.quantized.linear(saved, 1)
"""


def test_ordinary_code_passes(tmp_path: Path) -> None:
    check(script(tmp_path, GOOD), Form.TORCHSCRIPT)


@pytest.mark.parametrize(
    "line",
    [
        'torch.save(x, "/tmp/harm")', 'torch.from_file("/etc/passwd", False, 10)', "(torch\\\n.\\\nsave)(x)",
        "ops.aten.from_file(x)", "ops.c10d.send(x)", "ops . symm_mem . get(x)", "ops.mine.op(x)",
    ],
)  # fmt: skip
def test_operators_that_reach_out_are_refused(line: str, tmp_path: Path) -> None:
    with pytest.raises(Refused) as refused:
        check(script(tmp_path, f"{GOOD}    {line}\n"), Form.TORCHSCRIPT)
    assert refused.value.finding.code == "OPERATOR_FORBIDDEN"


@pytest.mark.parametrize(
    "text",
    ["s0", "2*s77 + 1", "Symbol('s77', positive=True, integer=True)", "Mul(Integer(2), Symbol('s0'))", "Max(1, u0)"],
)
def test_lengths_are_formulas(text: str, tmp_path: Path) -> None:
    check(program(tmp_path, {"sizes": [{"as_expr": {"expr_str": text}}]}), Form.TORCH_EXPORT)


@pytest.mark.parametrize(
    "text",
    [
        "__import__('os').system('true')", "exec(chr(49))", "eval('1')", "s0.__class__", "Symbol('s0').args", "[s0]",
        "lambda: s0", "s0 if s0 else s1", "open('x')", "(s0 := 1)", 'Symbol("s0")', 1, None,
    ],
)  # fmt: skip
def test_lengths_that_are_programs_are_refused(text: object, tmp_path: Path) -> None:
    with pytest.raises(Refused) as refused:
        check(program(tmp_path, {"sizes": [[{"as_expr": {"expr_str": text}}]]}), Form.TORCH_EXPORT)
    assert refused.value.finding.code == "EXPRESSION_FORBIDDEN"


@pytest.mark.parametrize(
    ("files", "code"),
    [
        ({"data/aotinductor/model/a.so": b"\x7fELF"}, "COMPILED_CODE"),
        ({"data/constants/custom_obj_0": b""}, "PICKLED_OBJECT"),
        ({"data/constants/model_constants_config.json": b'{"config": {"c": {"use_pickle": true}}}'}, "PICKLED_OBJECT"),
        ({"data/weights/model_weights_config.json": b'{"config": {"w": {"use_pickle": 1}}}'}, "PICKLED_OBJECT"),
        ({"models/other.json": b"{"}, "ARCHIVE_BROKEN"),
        ({"models/other.json": b"[" * 100_000}, "ARCHIVE_BROKEN"),
        ({"models/other.json": b'{"target": "torch.ops.aten.from_file.default"}'}, "OPERATOR_FORBIDDEN"),
    ],
)
def test_parts_that_run_something_are_refused(files: dict[str, bytes], code: str, tmp_path: Path) -> None:
    with pytest.raises(Refused) as refused:
        check(program(tmp_path, {}, **files), Form.TORCH_EXPORT)
    assert refused.value.finding.code == code
