"""Sets up and starts a Triton Inference Server without a container: the one inside the `nvidia-pytriton` wheel, with
the Python backends beside this file as its `onnxruntime`, `pytorch`, `tensorflow` and `decoder`. For tests,
measurements, and machines without GPUs; elsewhere NVIDIA's image serves the same model repository.

    python triton_repo/serve.py --install
    python triton_repo/serve.py --repository .mercat/repository --port 8001

Needs nothing but Python's standard library, run by the Python that has Mercat's dependencies. PyTorch and TensorFlow
are those of this Python, or of the one that `MERCAT_CONVERTERS` names."""

import argparse
import os
import platform
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Sequence
from pathlib import Path

HERE = Path(__file__).resolve().parent
FOLDER = HERE.parent / ".tools" / "triton"
WHEEL = "nvidia-pytriton==0.7.0"
NUMPY = "numpy==1.26.4"  # the wheel's Python backend misreads arrays of later ones
VERSION = f"{sys.version_info.major}.{sys.version_info.minor}"


def lacking() -> str:
    """Why this machine cannot run the wheel's Triton; empty when it can."""
    if (sys.platform, platform.machine()) != ("linux", "x86_64"):
        return f"{WHEEL} has no wheel for {sys.platform} on {platform.machine()}: it needs Linux on x86_64"
    libc, version = platform.libc_ver()
    if libc != "glibc" or tuple(map(int, version.split(".")[:2])) < (2, 35):
        return f"{WHEEL} needs glibc 2.35 or newer, not {libc or 'another C library'} {version}".rstrip()
    if VERSION not in ("3.11", "3.12"):
        return f"Triton's Python backend needs {NUMPY}, which has no wheel for Python {VERSION}: use 3.11 or 3.12"
    return ""


def install(folder: Path = FOLDER) -> None:
    """Unpacks the wheel and its numpy into `folder`, replacing what is there. CalledProcessError when pip fails."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="triton-", dir=folder.parent) as part:
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
        subprocess.run([*pip, "--target", f"{part}/triton", WHEEL], check=True)
        subprocess.run([*pip, "--target", f"{part}/triton/site", NUMPY], check=True)
        server = Path(part, "triton", "pytriton", "tritonserver")
        backend = Path(part, "triton", "backends", "python")
        shutil.copytree(server / "backends" / "python", backend)
        shutil.copy2(server / "python_backend_stubs" / VERSION / "triton_python_backend_stub", backend)
        shutil.rmtree(folder, ignore_errors=True)
        Path(part, "triton").rename(folder)


def command(
    repository: Path, *, host: str = "127.0.0.1", port: int = 8001, metrics: int = 0, frameworks: str = "",
    folder: Path = FOLDER,
) -> tuple[list[str], dict[str, str]]:  # fmt: skip
    """The arguments and the environment that start Triton over a model repository, its models loaded on demand.

    Args:
        repository: the folder of models, as the registry writes it.
        host, port: where it serves gRPC.
        metrics: the port of its Prometheus metrics; 0: none.
        frameworks: where PyTorch and TensorFlow are installed, if they are not beside Mercat's own dependencies.

    Raises FileNotFoundError when Triton is not installed.
    """
    server = folder / "pytriton" / "tritonserver" / "bin" / "tritonserver"
    if not server.exists():
        raise FileNotFoundError(f"there is no Triton in {folder}; `make tools` installs it")
    for backend in ("onnxruntime", "pytorch", "tensorflow", "decoder"):
        _place(HERE / "backends" / backend / "model.py", folder / "backends" / backend / "model.py")
    argv = [
        str(server), f"--model-repository={repository}", f"--backend-directory={folder / 'backends'}",
        "--model-control-mode=explicit", "--disable-auto-complete-config", "--exit-timeout-secs=10",
        f"--backend-config=python,shm-region-prefix-name={_shared(port)}",
        "--allow-http=false", f"--grpc-address={host}", f"--grpc-port={port}",
        f"--metrics-address={host}", f"--metrics-port={metrics}" if metrics else "--allow-metrics=false",
    ]  # fmt: skip
    libraries = [folder / "nvidia_pytriton.libs", sysconfig.get_config_var("LIBDIR")]
    project = HERE.parent  # what the backends share, and the decoder's engine, are Mercat's
    # The frameworks come last: what Mercat has too is Mercat's.
    site = [folder / "site", sysconfig.get_path("purelib"), project, project / "gen", frameworks]
    paths = {
        "LD_LIBRARY_PATH": os.pathsep.join(map(str, libraries)),
        "PYTHONPATH": os.pathsep.join(str(path) for path in site if path),
    }
    return argv, {**os.environ, **paths}


def packages(python: str) -> str:
    """The folder of an interpreter's packages. Raises ValueError where Triton's Python cannot import them."""
    asked = "import sys, sysconfig; print('{}.{}'.format(*sys.version_info), sysconfig.get_path('platlib'))"
    try:
        done = subprocess.run([python, "-I", "-c", asked], capture_output=True, text=True, check=True, timeout=60)
    except (OSError, subprocess.SubprocessError) as e:
        raise ValueError(f"{python} cannot be run: {e}") from e
    version, _, folder = done.stdout.strip().partition(" ")
    if version != VERSION:
        raise ValueError(f"{python} is Python {version}, and Triton's is {VERSION}")
    return folder


def sweep(port: int) -> None:
    """Removes the shared memory that a Triton on this port left when it was killed."""
    for region in Path("/dev/shm").glob(f"{_shared(port)}*"):  # noqa: S108
        region.unlink(missing_ok=True)


def _shared(port: int) -> str:
    return f"mercat-triton-{port}-"


def _place(source: Path, target: Path) -> None:
    """Copies a file; whoever starts Triton meanwhile sees the whole of the old or the new one. A link would not do:
    Triton refuses backends that lie outside its folder."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if not target.exists() or target.read_bytes() != source.read_bytes():
        part = target.with_suffix(f".{os.getpid()}.part")
        shutil.copyfile(source, part)
        part.replace(target)


def main(args: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n\n")[0])
    parser.add_argument("--install", action="store_true", help=f"put {WHEEL} into {FOLDER}")
    parser.add_argument("--repository", type=Path, metavar="DIR", help="the model repository to serve")
    parser.add_argument("--host", default="127.0.0.1", help="address of its gRPC [127.0.0.1]")
    parser.add_argument("--port", type=int, default=8001, help="port of its gRPC [8001]")
    parser.add_argument("--metrics", type=int, default=0, metavar="PORT", help="serve Prometheus metrics there")
    given, more = parser.parse_known_args(args)
    if problem := lacking():
        sys.exit(f"There is no Triton for this machine: {problem}.")
    if given.install:
        install()
    if given.repository is None:
        if not given.install:
            parser.error("give --repository, --install or both")
        return
    frameworks = ""
    if converters := os.environ.get("MERCAT_CONVERTERS"):
        try:
            frameworks = packages(converters)
        except ValueError as error:
            print(f"PyTorch's and TensorFlow's models are not served here: {error}.", file=sys.stderr)  # noqa: T201
    try:
        argv, environment = command(
            given.repository, host=given.host, port=given.port, metrics=given.metrics, frameworks=frameworks
        )
    except FileNotFoundError as error:
        sys.exit(f"{error}.")
    sweep(given.port)
    os.execve(argv[0], [*argv, *more], environment)  # noqa: S606


if __name__ == "__main__":
    main()
