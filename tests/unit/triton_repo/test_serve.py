"""What is found out before Triton starts."""

import sys
from pathlib import Path

import pytest

from triton_repo import serve


def test_packages_are_those_of_the_interpreter() -> None:
    assert Path(serve.packages(sys.executable), "numpy").is_dir()


@pytest.mark.parametrize(
    ("script", "said"), [("echo 3.9 /somewhere", "is Python 3.9, and Triton's is 3"), ("exit 3", "cannot be run")]
)
def test_packages_of_another_python_are_of_no_use(script: str, said: str, tmp_path: Path) -> None:
    python = tmp_path / "python"
    python.write_text(f"#!/bin/sh\n{script}\n")
    python.chmod(0o755)
    with pytest.raises(ValueError, match=said):
        serve.packages(str(python))


def test_an_interpreter_must_be_there() -> None:
    with pytest.raises(ValueError, match="cannot be run"):
        serve.packages("/nowhere/python")
