"""What got past other people's scanners gets no further here (cases 21 to 23): each sample of `hostile` is refused with
its code and a reason, quickly, and does nothing."""

import re
import time
from pathlib import Path

import pytest

from services.registry.validation import Limits, validate
from services.registry.validation.conversion import Told
from tests.robustness.hostile import SAMPLES

NO_PYTHON = Told(python="/nowhere/python")  # what is refused is refused before any framework is asked
WITHIN = 60.0  # seconds
ROOT = Path(__file__).parents[2]
TRIED = (
    "robustness/hostile.py", "robustness/artifacts.py", "robustness/tampered.py", "robustness/test_artifacts.py",
    "unit/registry/validation/frameworks/test_pickles.py",
)  # fmt: skip


@pytest.mark.parametrize("sample", SAMPLES)
async def test_it_is_refused_and_does_nothing(sample: str, tmp_path: Path) -> None:
    code, make = SAMPLES[sample]
    witness = tmp_path / "witness"
    path = tmp_path / "model.bin"
    path.write_bytes(make(witness))
    before = {entry.name for entry in tmp_path.iterdir()}
    started = time.monotonic()
    report = await validate(path, Limits(), tmp_path / "made", NO_PYTHON)
    assert time.monotonic() - started < WITHIN
    expected = "CONVERTER_MISSING" if code == "CONVERTER" else code
    assert [finding.code for finding in report.findings] == [expected], report.findings
    assert report.findings[0].message
    assert "root:" not in report.to_json()
    assert {entry.name for entry in tmp_path.iterdir()} == before
    assert not witness.exists()


def advisories(text: str) -> set[str]:
    """Also those that are written short, `CVE-2025-1, -2`."""
    found: set[str] = set()
    for kind, first, more in re.findall(r"(CVE-\d{4}|GHSA)(-[\da-z-]+)((?:, -[\da-z-]+)*)", text):
        found |= {kind + first, *(kind + other for other in re.findall(r"-[\da-z-]+", more))}
    return found


def test_what_is_said_to_be_tried_is_tried() -> None:
    table = "\n".join(line for line in (ROOT / "docs" / "security.md").read_text().splitlines() if line[:1] == "|")
    said = advisories(table)
    assert len(said) > 50
    assert said == {found for name in TRIED for found in advisories((ROOT / "tests" / name).read_text())}


async def test_its_publisher_is_told_what_a_pickle_would_do(tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    for sample in ("a checkpoint", "GHSA-jgw4-cr84-mqxg CVE-2025-10155: a pickle under another extension"):
        path.write_bytes(SAMPLES[sample][1](tmp_path / "witness"))
        report = await validate(path, Limits(), tmp_path / "made", NO_PYTHON)
        assert "pathlib.Path" in report.findings[0].message
