"""The marketplace by the command line alone: a publisher brings a model of each framework to the market, an
administrator judges them, a consumer finds, compares, calls and rates them, and versions come and go."""

import json
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from tests import decoders, encoders, frameworks, graphs
from tests.converters import need_converters
from tests.expect import until
from tests.platform import Platform
from tests.terminal import MERCAT, Person

LARGE = 128 << 20  # bytes
X = "x=FP32[-1,4]"


@dataclass(frozen=True)
class Brought:
    """A model that is pushed: what its model.yaml says, by key; `more` is put below it."""

    name: str
    summary: str
    category: str
    task: str
    license: str
    tags: tuple[str, ...]
    price: tuple[str, ...] = ("requests=0.001",)
    more: str = ""

    def fill(self, folder: Path) -> Path:
        """Fills in what `mercat init` wrote."""
        path = folder / "model.yaml"
        text = path.read_text()
        said = {"summary": self.summary, "category": self.category, "task": self.task, "license": self.license}
        for key, value in (*said.items(), ("tag", list(self.tags))):
            text, count = re.subn(rf"^{key}: .*$", f"{key}: {json.dumps(value)}", text, flags=re.MULTILINE)
            assert count == 1, key
        prices = "\n".join(f"  - {price}" for price in self.price)
        path.write_text(f"{text}\nprice:\n{prices}\n{self.more}")
        return path


ADDER = Brought("adder", "Adds two lists of whole numbers", "other", "arithmetic", "MIT", ("maths",),
                more="sample:\n  - Two and two=sample.json\n")  # fmt: skip
SCRIPT = Brought("iris-script", "Scores four measurements of a flower", "other", "tabular-classification", "Apache-2.0",
                 ("flowers",), ("requests=0.002",), f'input:\n  - "{X}"\n')  # fmt: skip
PROGRAM = Brought("iris-program", "Turns four measurements of a flower into three", "other", "tabular-regression",
                  "BSD-3-Clause", ("flowers",), ("requests=0.004",))  # fmt: skip
SAVED = Brought("iris-saved", "Chooses the best of three kinds of flowers", "other", "tabular-classification", "MIT",
                ("flowers",))  # fmt: skip
STORIES = Brought("stories", "Tells short stories", "nlp", "text-generation", "Apache-2.0", ("english",),
                  ("input_tokens=0.1/1M", "output_tokens=0.4/1M"))  # fmt: skip
CATS = Brought("cats", "Turns short sentences about cats into vectors", "nlp", "text-embedding", "Apache-2.0",
               ("english",), ("input_tokens=0.1/1M",))  # fmt: skip


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    home = tmp_path_factory.mktemp("walk") / "home"
    with Platform(home, demo=True, env={"MERCAT_CONVERTERS": need_converters()}) as platform:
        yield platform


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return frameworks.made(need_converters(), tmp_path_factory.mktemp("models"))


@pytest.fixture
def person(running: Platform, tmp_path: Path) -> Callable[..., Person]:
    return lambda *signup: Person.signed_up(running, tmp_path, *signup)


def laid(folder: Path, models: Path) -> dict[Brought, Path]:
    """A file of each framework, each in a folder of its own."""
    made = {brought: folder / brought.name for brought in (ADDER, SCRIPT, PROGRAM, SAVED, STORIES, CATS)}
    for place in made.values():
        place.mkdir(parents=True)
    (made[ADDER] / "adder.onnx").write_bytes(graphs.addition())
    two = [{"name": name, "data": [2]} for name in "ab"]
    (made[ADDER] / "sample.json").write_text(json.dumps({"inputs": two}))
    shutil.copy(models / "scripted.pt", made[SCRIPT])
    shutil.copy(models / "program.pt2", made[PROGRAM])
    shutil.copytree(models / "saved_model", made[SAVED] / "saved_model")
    (made[STORIES] / "stories.gguf").write_bytes(decoders.tiny_gguf())
    (made[CATS] / "cats.onnx").write_bytes(encoders.graph())
    (made[CATS] / "tokenizer.json").write_text(encoders.tokenizer())
    artifacts = {b: next(f for f in place.iterdir() if f.suffix != ".json") for b, place in made.items()}
    assert len(artifacts) == 6
    return artifacts


def table() -> bytes:
    """int64 index [N] → row [N, 4] of a table: large, and next to no work."""
    rows = LARGE // 16
    values = os.urandom(1 << 16) * (LARGE >> 16)
    weights = onnx.TensorProto(name="table", data_type=TensorProto.FLOAT, dims=[rows, 4], raw_data=values)
    graph = helper.make_graph(
        [helper.make_node("Gather", ["table", "index"], ["row"])], "table",
        [helper.make_tensor_value_info("index", TensorProto.INT64, ["N"])],
        [helper.make_tensor_value_info("row", TensorProto.FLOAT, ["N", 4])], [weights],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    return bytes(model.SerializeToString())


def test_the_walk(running: Platform, person: Callable[..., Person], models: Path, tmp_path: Path) -> None:
    publisher, consumer, admin = person("--publisher"), person(), Person.admin(running, tmp_path)
    ours = {b: f"{publisher.name}/{b.name}" for b in (ADDER, SCRIPT, PROGRAM, SAVED, STORIES, CATS)}
    _push(publisher, laid(tmp_path / "files", models))
    _review(publisher, admin, ours)
    _versions(publisher, admin, consumer, ours[ADDER])
    _find(consumer, publisher, ours)
    _call(consumer, publisher, ours, models, tmp_path)
    _rate(consumer, publisher, ours)


def _push(publisher: Person, artifacts: dict[Brought, Path]) -> None:
    for brought, artifact in artifacts.items():
        said = publisher("init", str(artifact), "--name", brought.name)
        written = artifact.parent / "model.yaml"
        assert f"mercat push {written}" in said
        missing = publisher.refused("push", str(written), status=2 if brought is SCRIPT else 1)
        assert ("declare every input" if brought is SCRIPT else "needs --summary") in " ".join(missing.split())
        brought.fill(artifact.parent)
        done = publisher.run("push", str(written))
        assert done.returncode == 0, done.stdout + done.stderr
        assert f"uploading {'saved_model.zip' if brought is SAVED else artifact.name}" in done.stderr
        assert f"validating {publisher.name}/{brought.name}@1.0.0" in done.stderr
        assert f"mercat models submit {brought.name}@1.0.0" in done.stdout
    shown = publisher("models", "list", "--mine")
    assert all(f"{publisher.name}/{b.name}" in shown for b in artifacts)
    assert shown.count("not published") == len(artifacts)


def _review(publisher: Person, admin: Person, ours: dict[Brought, str]) -> None:
    for brought in ours:
        assert "once it is approved" in publisher("models", "submit", f"{brought.name}@1.0.0")
    waiting = admin("models", "reviews")
    assert all(f"{model}@1.0.0" in waiting for model in ours.values())
    shown = admin("models", "review", ours[STORIES])
    for part in ("validation", "ran in", "has a card", "priced", "TEXT_KIND_DECODER", "mercat models approve"):
        assert part in shown
    checks = {c["name"]: c["result"] for c in admin.json("models", "review", ours[ADDER])["checks"]}
    assert checks.pop("has release notes") == "CHECK_RESULT_WARNING"
    assert set(checks.values()) == {"CHECK_RESULT_PASSED"}, checks
    assert "--reason" in admin.refused("models", "reject", f"{ours[STORIES]}@1.0.0", status=2)
    admin("models", "reject", f"{ours[STORIES]}@1.0.0", "--reason", "Say what it was trained on.")
    assert "Say what it was trained on." in publisher("models", "show", "stories@1.0.0")
    assert "VERSION_STATE" in publisher.refused("models", "publish", "stories@1.0.0")
    publisher("models", "submit", "stories@1.0.0")
    assert "sent back" in admin("models", "review", ours[STORIES])
    for brought, model in ours.items():
        admin("models", "approve", f"{model}@1.0.0")
        assert f"mercat models show {model}" in publisher("models", "publish", f"{brought.name}@1.0.0")
    assert f"{publisher.name}/" not in admin("models", "reviews")


def _versions(publisher: Person, admin: Person, consumer: Person, model: str) -> None:
    written = next(publisher.folder.parent.glob("files/adder/model.yaml"))
    assert "under the next number" in publisher.refused("push", str(written))

    def follow(version: str, *options: str) -> str:
        publisher("push", str(written), "--version", version, "--notes", f"What {version} is for", "--submit", *options)
        shown = admin("models", "review", model)
        admin("models", "approve", f"{model}@{version}")
        publisher("models", "publish", f"adder@{version}")
        return shown

    publisher("models", "alias", "stable", "adder@1.0.0")
    shown = follow("1.1.0", "--max-batch-size", "32")
    assert re.search(r"settings.max_batch_size +16 +32", shown)
    assert "compared with  1.0.0" in shown
    assert "price as with the last version" not in shown, "the same price was set again"
    publisher("models", "alias", "stable", "adder@1.1.0")
    deprecate = ("models", "deprecate", "adder@1.0.0", "--reason", "Slow.")
    assert "calls are refused from" in publisher(*deprecate, "--sunset", "30d", "--successor", "1.1.0")
    assert "can only be put off" in publisher.refused(*deprecate, "--sunset", "3d")
    follow("1.2.0")
    publisher("models", "yank", "adder@1.2.0", "--reason", "It forgets to carry.")
    listed = publisher("models", "versions", "adder")
    assert re.search(r"1\.2\.0 +published, yanked", listed)
    assert re.search(r"1\.1\.0 +published +\(default\) :stable", listed)
    assert re.search(r"1\.0\.0 +deprecated until", listed)

    consumer("topup", "5")
    two = ("--input", "a=[2]", "--input", "b=[2]")

    def answered(reference: str) -> str:
        return str(consumer.json("infer", reference, *two)["version"])

    until(lambda: (answered(model), answered(f"{model}:stable")) == ("1.1.0", "1.1.0"))
    until(lambda: f"call {model}@1.1.0 instead" in consumer.told("infer", f"{model}@1.0.0", *two))
    until(lambda: "It forgets to carry." in consumer.told("infer", f"{model}@1.2.0", *two))


def _find(consumer: Person, publisher: Person, ours: dict[Brought, str]) -> None:
    def found(*words: str) -> list[str]:
        return [hit["model"] for hit in consumer.json("search", *words)["hits"]]

    until(lambda: set(ours.values()) <= set(found("--publisher", publisher.name)))
    assert found("ads tow lists of whoel nubmers")[0] == ours[ADDER]
    until(lambda: ours[ADDER] in found("the sum of integers", "--mode", "semantic"))
    flowers = {ours[b] for b in (SCRIPT, PROGRAM, SAVED)}
    mine = ("--publisher", publisher.name)
    assert set(found("--framework", "PyTorch", *mine)) == {ours[SCRIPT], ours[PROGRAM]}
    assert set(found("--license", "apache-2.0", "--tag", "flowers", *mine)) == {ours[SCRIPT]}
    assert set(found("--modality", "tabular", *mine)) == flowers
    assert set(found("--modality", "tabular", "--min-price", "1500", "--max-price", "3000", *mine)) == {ours[SCRIPT]}
    assert "none of nlp, vision" in consumer.refused("search", "--category", "language")
    nothing = consumer("search", "zqxjv", *mine)
    assert "No published model fits" in nothing
    assert "most of them" not in nothing
    faceted = consumer("search", *mine, "--facets")
    assert "up to 1 USD a million units" in faceted
    compared = consumer("explore", "compare", *sorted(flowers), ours[STORIES], "--units", "requests=1000")
    for part in ("2.00 USD", "4.00 USD", "tensorflow", "charges by input_tokens, output_tokens"):
        assert part in compared
    assert "`mercat explore compare`" in " ".join(consumer.refused("compare", *flowers, status=2).split())
    alike = [hit["model"] for hit in consumer.json("similar", ours[SCRIPT])["hits"]]
    assert {ours[PROGRAM], ours[SAVED]} & set(alike[:3])


def _call(consumer: Person, publisher: Person, ours: dict[Brought, str], models: Path, folder: Path) -> None:
    key = consumer.json("keys", "create", "app", "--scope", "inference:call")["secret"]
    sample = consumer.json("models", "show", f"{ours[ADDER]}@1.0.0")["samples"][0]["requestJson"]
    request = folder / "request.json"
    request.write_text(sample)
    answer = consumer.json("infer", ours[ADDER], "--data", str(request), MERCAT_API_KEY=key)
    assert (answer["outputs"][0]["data"], answer["costNanos"]) == ([4], "1000000")
    assert "models show" in " ".join(consumer.refused("infer", ours[ADDER], status=2, MERCAT_API_KEY=key).split())
    request.write_text(json.dumps({"inputs": [{"name": "x", "data": frameworks.ROWS.tolist()}]}))
    for brought, source in ((SCRIPT, "scripted"), (PROGRAM, "program"), (SAVED, "saved_model")):
        given = consumer.json("infer", ours[brought], "--data", str(request), MERCAT_API_KEY=key)["outputs"]
        with np.load(models / f"{source}.npz") as kept:
            for i, output in enumerate(given):
                assert np.allclose(np.ravel(np.float64(output["data"])), np.ravel(kept[f"out.{i}"]), atol=1e-4)
    assert re.search(r"\d out", consumer.told("chat", ours[STORIES], "Once", "--max-tokens", "4", MERCAT_API_KEY=key))
    assert "vector of 8" in consumer("embed", ours[CATS], "cats sleep", "the world", MERCAT_API_KEY=key)
    assert "mercat infer" in consumer.refused("embed", ours[SCRIPT], "cats", MERCAT_API_KEY=key)

    def counted() -> dict[str, Any]:
        return {record["model"]: record for record in consumer.json("usage")["records"]}

    until(lambda: set(ours.values()) <= set(counted()))
    until(lambda: int(publisher.json("earnings")["payableNanos"]) > 0)


def _rate(consumer: Person, publisher: Person, ours: dict[Brought, str]) -> None:
    model = ours[SCRIPT]
    assert "OWN_MODEL" in publisher.refused("reviews", "write", "iris-script", "--rating", "5")
    written = ("reviews", "write", model, "--rating", "5", "-m", "knows its [flowers]")
    until(lambda: consumer.run(*written).returncode == 0)
    (review,) = publisher.json("reviews", "list", "iris-script")["reviews"]
    assert (review["version"], review["rating"]) == ("1.0.0", 5)
    publisher("reviews", "reply", review["reviewId"], "Thank you.")
    shown = consumer("reviews", "list", model)
    assert "knows its [flowers]" in shown
    assert "Thank you." in shown
    rated = ("search", "--publisher", publisher.name, "--min-rating", "3.5")
    until(lambda: [hit["model"] for hit in consumer.json(*rated)["hits"]] == [model])
    until(lambda: "5.0 (1)" in consumer("models", "show", model))

    assert consumer.json("favourites", "add", model) == {}
    assert model in consumer("favourites", "list")
    consumer("follow", publisher.name)
    fed = {f"{e['hit']['model']}@{e['version']}" for e in consumer.json("feed")["entries"]}
    assert {f"{name}@1.0.0" for b, name in ours.items() if b is not ADDER} | {f"{ours[ADDER]}@1.1.0"} <= fed
    assert model in consumer("explore", "top", "rated")
    until(lambda: model in consumer("explore", "top", "popular", "--limit", "100"))
    assert "it takes 20 calls" in consumer("explore", "top", "fastest", "--task", "tabular-classification")
    cheapest = [
        h["model"] for h in consumer.json("explore", "top", "cheapest", "--task", "tabular-classification")["hits"]
    ]
    assert cheapest.index(ours[SAVED]) < cheapest.index(ours[SCRIPT])
    related = consumer("explore", "related", model)
    assert f"like {model}" in related


def test_a_push_that_was_killed_says_where_it_goes_on(
    running: Platform, person: Callable[..., Person], tmp_path: Path
) -> None:
    publisher = person("--publisher")
    file = tmp_path / "table.onnx"
    file.write_bytes(table())
    push = (
        "push", str(file), "--name", "table", "--version", "1.0.0", "--summary", "Looks rows up", "--category", "other",
        "--task", "lookup", "--license", "MIT",
    )  # fmt: skip
    arriving = running.home / "uploads"
    with subprocess.Popen(
        [*MERCAT, *push], env=publisher.environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as broken:
        while max((f.stat().st_size for f in arriving.glob("upl_*")), default=0) < 4 << 20:
            assert broken.poll() is None
            time.sleep(0.002)
        broken.send_signal(signal.SIGKILL)
    assert "table.onnx" in publisher("uploads", "list")
    again = publisher.run(*push)
    assert again.returncode == 0, again.stdout + again.stderr
    assert "going on with table.onnx at" in again.stderr
    assert "takes    index INT64" in again.stdout
