"""Conversions by the real frameworks that end in a refusal."""

import json
import shutil
from pathlib import Path

import pytest

from services.registry.validation import Limits, Report, Samples, Tensor, Told, validate
from tests import frameworks
from tests.converters import need_converters

X = (Tensor("x", "FP32", (-1, 4), ("", "")),)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return frameworks.made(need_converters(), tmp_path_factory.mktemp("models"))


async def refused(path: Path, told: Told) -> Report:
    report = await validate(path, Limits(), None, told)
    assert len(report.findings) == 1
    assert not report.made
    return report


async def test_a_model_that_draws_lots_differs_from_itself(models: Path) -> None:
    report = await refused(models / "dropout.pt", Told(X, python=need_converters()))
    assert (report.findings[0].code, report.findings[0].where) == ("OUTPUTS_DIFFER", "output__0")


async def test_a_program_that_writes_files_is_not_opened(models: Path) -> None:
    report = await refused(models / "writer.pt", Told(X, python=need_converters()))
    assert report.findings[0].code == "OPERATOR_FORBIDDEN"


async def test_a_graph_that_reads_files_is_not_run(models: Path, tmp_path: Path) -> None:
    path = shutil.make_archive(str(tmp_path / "reader"), "gztar", models, "reader")
    report = await refused(Path(path), Told(python=need_converters()))
    assert (report.findings[0].code, report.findings[0].where) == ("OPERATOR_FORBIDDEN", "ReadFile")


async def test_a_pickle_inside_is_not_unpickled(models: Path) -> None:
    report = await refused(models / "pickled.pt2", Told(python=need_converters()))
    assert report.findings[0].code == "CONVERSION_FAILED"
    assert "Weights only load failed" in report.findings[0].message


async def test_inputs_have_the_names_of_arguments(models: Path) -> None:
    other = (Tensor("rows", "FP32", (-1, 4), ("", "")),)
    report = await refused(models / "scripted.pt", Told(other, python=need_converters()))
    assert report.findings[0].code == "SIGNATURE_DIFFERS"
    assert "forward takes x, scale" in report.findings[0].message


async def test_samples_are_run_on_what_is_served_of_it(models: Path, tmp_path: Path) -> None:
    said = [{"name": "x", "data": [[1, 2, 3, 4]]}], [{"name": "x", "data": [[1, 2]]}]
    requests = tuple(json.dumps({"inputs": inputs}) for inputs in said)
    told, made = Told(samples=requests, python=need_converters()), tmp_path / "made"
    good = await validate(models / "program.pt2", Limits(), made, told, samples=Samples(requests[:1], ("Fine",)))
    assert good.findings == ()
    assert json.loads(good.samples[0])["outputs"][0]["shape"] == ["1", "3"]
    bad = await validate(models / "program.pt2", Limits(), made, told, samples=Samples(requests, ("Fine", "Short")))
    assert [(f.code, f.where) for f in bad.findings] == [("SAMPLE_INVALID", "samples[1] Short")]


@pytest.mark.parametrize(("python", "said"), [("", "mercat[pytorch]"), ("/nowhere/python", "MERCAT_CONVERTERS")])
async def test_a_missing_converter_says_what_to_do(models: Path, python: str, said: str) -> None:
    report = await refused(models / "program.pt2", Told(python=python))
    assert report.findings[0].code == "CONVERTER_MISSING"
    assert said in report.findings[0].message
    assert report.framework == "pytorch"
