"""The environment in which PyTorch and TensorFlow models are converted, for tests and for machines without GPUs:
`.tools/converters`, from requirements-converters.lock.

    python -m tests.converters

The PyTorch that the package registry has for Linux is linked against CUDA's libraries, gigabytes that nothing calls
where there is no GPU. In their place stand libraries of the same names and functions, each of which answers
`cudaErrorNoDevice`; what PyTorch computes on the CPU is its own code. It takes a C compiler and binutils."""

import os
import re
import shutil
import subprocess
import sys
import tempfile
import venv
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / ".tools" / "converters"
PYTHON = FOLDER / "bin" / "python"
_LOCK = ROOT / "requirements-converters.lock"
_CUDA = re.compile(r"lib(cu|nccl|nvrtc|nvshmem)")
_CALLED = re.compile(r"(cu|nccl|nvrtc|nvshmem)")
_LAZY = ("libcuda.so.1", "libcusolver.so.12")  # of libraries that are loaded when a GPU is used
_TOOLS = ("cc", "nm", "readelf")


def lacking() -> str:
    """Why the environment cannot be made here; empty when it can."""
    missing = [tool for tool in _TOOLS if shutil.which(tool) is None]
    if sys.platform == "linux" and missing:
        return f"the converters need {', '.join(missing)}"
    return ""


def need_converters() -> str:
    """The interpreter of the converters. Skips the test where there is none; in CI it fails."""
    if not (FOLDER / ".ready").exists():
        import pytest

        problem = lacking() or "the converters are not installed; `make tools` installs them"
        (pytest.fail if os.environ.get("CI") else pytest.skip)(problem)
    return str(PYTHON)


def install() -> None:
    """Makes the environment anew. CalledProcessError when a step fails."""
    shutil.rmtree(FOLDER, ignore_errors=True)
    venv.create(FOLDER, with_pip=True)
    pip = [str(PYTHON), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-cache-dir"]
    subprocess.run([*pip, "--no-deps", "--require-hashes", "--requirement", str(_LOCK)], check=True)
    site = next(FOLDER.glob("lib/python*/site-packages"))
    if sys.platform == "linux":
        _stand_in(site / "torch" / "lib", site / "nvidia" / "cu13" / "lib")


def _stand_in(torch: Path, folder: Path) -> None:
    """Makes in `folder` the libraries of CUDA that those in `torch` are linked against."""
    needed: set[str] = set()
    library_of: dict[str, str] = {}  # by the version of a symbol
    wanted: dict[str, set[str]] = defaultdict(set)  # symbols, by their version
    for file in torch.glob("*.so*"):
        dynamic = subprocess.run(["readelf", "-dVW", file], capture_output=True, text=True, check=True).stdout
        needed.update(name for name in re.findall(r"\(NEEDED\).*\[(.*)\]", dynamic) if _CUDA.match(name))
        library = ""
        for line in dynamic.splitlines():
            if found := re.search(r"File: (\S+)", line):
                library = found[1]
            if found := re.search(r"Name: (\S+)  Flags", line):
                library_of[found[1]] = library
        symbols = subprocess.run(["nm", "-D", "--undefined-only", file], capture_output=True, text=True, check=True)
        for line in symbols.stdout.splitlines():
            name, _, version = line.split()[-1].partition("@")
            if version or _CALLED.match(name):
                wanted[version].add(name)
    folder.mkdir(parents=True)
    for library in sorted(needed.difference(_LAZY)):
        _library(folder / library, {v: wanted[v] for v, of in library_of.items() if of == library})
    # A symbol without a version may come from any library that is loaded.
    _library(folder / "libnccl.so.2", {"": wanted[""]})


def _library(path: Path, symbols: dict[str, set[str]]) -> None:
    names = sorted(name for some in symbols.values() for name in some)
    versions = [f"{v} {{ global: {' '.join(f'{n};' for n in sorted(some))} }};" for v, some in symbols.items() if v]
    with tempfile.TemporaryDirectory() as work:
        source, script = Path(work, "source.c"), Path(work, "versions")
        source.write_text("".join(f"int {name}(void) {{ return 100; }}\n" for name in names))
        script.write_text("\n".join(versions))
        argv = ["cc", "-shared", "-w", "-fPIC", "-o", str(path), str(source), f"-Wl,-soname,{path.name}"]
        subprocess.run([*argv, *([f"-Wl,--version-script={script}"] if versions else [])], check=True)


if __name__ == "__main__":
    if said := lacking():
        sys.exit(f"There are no converters for this machine: {said}.")
    install()
