"""`mercat init`: what a file says is in its model.yaml, and that is what `mercat push` reads."""

import zipfile
from pathlib import Path
from typing import Annotated, Any

import pytest
import typer
from onnx import TensorProto, helper, numpy_helper
from typer.testing import CliRunner

from services.cli import declared, initiating
from services.cli.looking import look
from services.cli.session import Refusal
from services.common.plain_yaml import load
from services.registry.cards import front_matter
from tests import decoders, encoders, graphs


@pytest.fixture
def written(tmp_path: Path) -> Any:
    app = typer.Typer(callback=lambda: None)
    initiating.register(app)

    def run(name: str, data: bytes, *options: str, refused: str = "") -> Path:
        (tmp_path / name).write_bytes(data)
        done = CliRunner().invoke(app, ["init", str(tmp_path / name), *options])
        assert (refused or "Fill in") in done.output, done.output
        return tmp_path / "model.yaml"

    return run


def test_an_onnx_file_says_what_it_takes(written: Any) -> None:
    path = written("My Model.onnx", graphs.tiny())
    said = load(path.read_text())
    assert (said["artifact"], said["name"], said["version"]) == ("My Model.onnx", "my-model", "1.0.0")
    assert said["max-batch-size"] == "16"
    assert "takes x FP32 [N, 4]" in path.read_text()
    card = (path.parent / "card.md").read_text()
    assert front_matter.read(card, "card") is not None
    assert "- takes `x FP32 [N, 4]`" in card


def test_what_is_there_is_kept(written: Any) -> None:
    path = written("a.onnx", graphs.tiny())
    path.write_text("mine")
    written("a.onnx", graphs.tiny(), refused="is there already")
    assert path.read_text() == "mine"
    written("a.onnx", graphs.tiny(), "--force")
    assert load(path.read_text())["artifact"] == "a.onnx"


def test_values_beside_a_model_are_named(tmp_path: Path) -> None:
    tensor = numpy_helper.from_array(graphs.np.zeros(4, "f4"), "w")
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="w.bin")
    x, y = (helper.make_tensor_value_info(n, TensorProto.FLOAT, [4]) for n in "xy")
    graph = helper.make_graph([helper.make_node("Add", ["x", "w"], ["y"])], "g", [x], [y], [tensor])
    (tmp_path / "m.onnx").write_bytes(helper.make_model(graph).SerializeToString())
    seen = look(tmp_path / "m.onnx")
    assert (seen.data, seen.parameters, seen.batched) == (("w.bin",), 4, False)


def test_a_gguf_file_is_a_text_model(written: Any) -> None:
    said = load(written("chat.gguf", decoders.tiny_gguf()).read_text())
    assert (said["category"], said["task"], "max-batch-size" in said) == ("nlp", "text-generation", False)


def test_a_graph_of_tokens_beside_its_tokenizer_is_a_text_model(written: Any, tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text(encoders.tokenizer())
    path = written("bert.onnx", encoders.graph())
    said = load(path.read_text())
    assert (said["tokenizer"], said["task"], "max-batch-size" in said) == ("tokenizer.json", "text-embedding", False)
    assert "input_tokens=0.10/1M" in path.read_text()


def test_torchscript_does_not_say_what_it_takes(written: Any, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "s.zip", "w") as archive:
        for name in ("m/code/__torch__.py", "m/data.pkl", "m/constants.pkl", "m/version"):
            archive.writestr(name, b"3\n")
    path = written("s.pt", (tmp_path / "s.zip").read_bytes())
    assert "# input:" in path.read_text()


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"\x80\x04.", "pickle"),
        (b"\x0a\0\0\0\0\0\0\0" + b'{"w": null}', "safetensors"),
        (b"\x7fELF", "program"),
        (b"", "empty"),
        (b"GGUF\x03\0\0\0", "GGUF_CUT_OFF"),
        (b"\x08", "NOT_ONNX"),
    ],
)
def test_what_cannot_be_pushed_is_refused(tmp_path: Path, data: bytes, why: str) -> None:
    (tmp_path / "m.bin").write_bytes(data)
    with pytest.raises(Refusal, match=why):
        look(tmp_path / "m.bin")


@pytest.fixture
def pushed(tmp_path: Path) -> Any:
    """What a command like push gets of a model.yaml and a command line."""
    got: dict[str, Any] = {}
    app = typer.Typer()

    @app.command()
    def push(
        file: Annotated[Path, typer.Argument(is_eager=True, callback=declared.given)],
        name: Annotated[str, typer.Option()],
        card: str = "",
        tag: list[str] | None = None,
        sample: list[str] | None = None,
        max_batch_size: int = 0,
        license_: Annotated[str, typer.Option("--license")] = "",
        server: str = "",
    ) -> None:
        got.update(locals())

    def run(text: str, *options: str) -> Any:
        got.clear()
        (tmp_path / "m.onnx").write_bytes(b"x")
        (tmp_path / "model.yaml").write_text(text)
        done = CliRunner().invoke(app, [str(tmp_path / "model.yaml"), *options])
        return (done.output, got)

    return run


def test_a_declaration_is_as_good_as_options(pushed: Any, tmp_path: Path) -> None:
    text = "artifact: m.onnx\nname: n\ncard: c.md\ntag: [a, b]\nsample: T=s.json\nmax-batch-size: 8\nlicense: MIT"
    _, got = pushed(text)
    assert (got["file"], got["name"], got["card"]) == (tmp_path / "m.onnx", "n", str(tmp_path / "c.md"))
    assert (got["tag"], got["sample"], got["max_batch_size"]) == (["a", "b"], [f"T={tmp_path}/s.json"], 8)
    _, got = pushed(text, "--name", "other", "--tag", "c")
    assert (got["name"], got["tag"], got["license_"]) == ("other", ["c"], "MIT")


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("name: n", "does not say"),
        ("artifact: gone.onnx\nname: n", "is not there"),
        ("artifact: m.onnx\nnmae: n", "'nmae' is no option"),
        ("artifact: m.onnx\nname: n\nserver: evil", "'server' is no option"),
        ("artifact: m.onnx\nname: [a, b]", "must be a text"),
        ("artifact: m.onnx\nname: {a: b}", "must be a text"),
        ("artifact: m.onnx\nname: &a b\ncard: *a", "aliases"),
        ("artifact: m.onnx\nname: n\nmax-batch-size: many", "integer"),
        ("artifact: m.onnx\n", "--name"),
    ],
)
def test_a_wrong_declaration_is_refused(pushed: Any, text: str, why: str) -> None:
    output, got = pushed(text)
    assert (got, why in " ".join(output.replace("│", " ").split())) == ({}, True), output
