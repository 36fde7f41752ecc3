"""The peers' exact versions."""

import re
from pathlib import Path

import pytest

from benchmarks import peers

LOCK = Path(__file__).parents[3] / "requirements.lock"


@pytest.mark.parametrize("name", ["mlserver", "litserve"])
def test_peers_run_the_same_engine(name: str) -> None:
    found = re.search(r"^onnxruntime==([^ ;]+)", LOCK.read_text(), re.MULTILINE)
    assert found is not None
    assert peers.version(name, "onnxruntime") == found[1]


@pytest.mark.parametrize("path", sorted(peers.HERE.glob("*.txt")), ids=lambda path: path.stem)
def test_every_version_is_exact(path: Path) -> None:
    for line in path.read_text().splitlines():
        assert re.fullmatch(r"[\w.-]+==[\w.]+", line), line
