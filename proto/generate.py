"""Generates everything under gen/ from the contracts in proto/.

`python proto/generate.py` rewrites gen/; `--check` generates into a temporary folder and exits 1 naming
each file of gen/ that differs. The output depends on the contracts and the locked generator versions only.
"""

from __future__ import annotations

import argparse
import filecmp
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from google.rpc import status_pb2

ROOT = Path(__file__).resolve().parent.parent
PROTO = ROOT / "proto"
GEN = ROOT / "gen"

# googleapis-common-protos installs the sources of Google's protos beside its modules.
GOOGLE = Path(status_pb2.__file__).resolve().parents[2]

# In the descriptor image for Envoy, which needs the types to print error details as JSON.
GOOGLE_EXTRA = ["google/rpc/error_details.proto", "google/rpc/status.proto"]

# What this script writes below gen/; anything else there (SDKs) is not its own.
OUTPUTS = ["mercat", "openapi", "descriptors.binpb"]


class GenerateError(Exception):
    """A generator failed; the message is what it said."""


def contracts() -> list[str]:
    """Every contract, relative to proto/, in a stable order."""
    return sorted(path.relative_to(PROTO).as_posix() for path in PROTO.rglob("*.proto"))


def run(command: list[str], env: dict[str, str] | None = None) -> None:
    done = subprocess.run(command, cwd=PROTO, env=env, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise GenerateError((done.stderr or done.stdout).strip() or f"{command[0]} exited {done.returncode}")


def protoc(*arguments: str) -> None:
    includes = [f"-I{PROTO}", f"-I{GOOGLE}"]
    run([sys.executable, "-m", "grpc_tools.protoc", *includes, *arguments])


def plugin(name: str) -> str:
    path = Path(sys.prefix) / "bin" / name
    if not path.exists():
        raise GenerateError(f"{name} is not installed in {sys.prefix}: run `make install`")
    return f"--plugin={name}={path}"


def generate_python(out: Path, protos: list[str]) -> None:
    protoc(
        plugin("protoc-gen-mypy"),
        plugin("protoc-gen-mypy_grpc"),
        f"--python_out={out}",
        f"--grpc_python_out={out}",
        f"--mypy_out={out}",
        f"--mypy_grpc_out={out}",
        *protos,
    )
    packages = {out / "mercat"}
    for proto in protos:
        packages.update((out / proto).parents[: len(Path(proto).parents) - 1])
    for package in packages:
        (package / "__init__.py").touch()
    (out / "mercat" / "py.typed").touch()
    # A contract without a service has nothing to say to gRPC.
    for stub in out.rglob("*_pb2_grpc.py"):
        if "class " not in stub.read_text(encoding="utf-8"):
            stub.unlink()
            stub.with_suffix(".pyi").unlink(missing_ok=True)


def generate(out: Path) -> None:
    """Writes all outputs below `out`. Raises GenerateError with the compiler's own words."""
    protos = contracts()
    out.mkdir(parents=True, exist_ok=True)
    generate_python(out, protos)
    image = out / "descriptors.binpb"
    protoc("--include_imports", "--include_source_info", f"--descriptor_set_out={image}", *protos, *GOOGLE_EXTRA)
    # A process of its own: it must import the modules just generated, not those of gen/.
    env = dict(os.environ, PYTHONPATH=os.pathsep.join([str(out), str(ROOT)]), PYTHONDONTWRITEBYTECODE="1")
    document = out / "openapi" / "mercat.json"
    document.parent.mkdir(parents=True, exist_ok=True)
    run([sys.executable, "-m", "gateway_rest.openapi", str(image), str(document)], env)


def files(folder: Path) -> set[str]:
    found: set[str] = set()
    for name in OUTPUTS:
        path = folder / name
        if path.is_file():
            found.add(name)
        found.update(
            child.relative_to(folder).as_posix()
            for child in path.rglob("*")
            if child.is_file() and "__pycache__" not in child.parts
        )
    return found


def differences(fresh: Path) -> list[str]:
    """One line for each file that is missing, left over or different in gen/."""
    want, have = files(fresh), files(GEN)
    lines = [f"gen/{name}: missing" for name in sorted(want - have)]
    lines += [f"gen/{name}: no contract makes this any more" for name in sorted(have - want)]
    same = sorted(want & have)
    _, changed, _ = filecmp.cmpfiles(fresh, GEN, same, shallow=False)
    return lines + [f"gen/{name}: differs" for name in changed]


def install(fresh: Path) -> None:
    """Puts only what changed in place, so that running processes and editors see few writes."""
    for name in sorted(files(GEN) - files(fresh)):
        (GEN / name).unlink()
    for name in sorted(files(fresh)):
        target = GEN / name
        if target.exists() and filecmp.cmp(fresh / name, target, shallow=False):
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(fresh / name, target)


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description="Generate gen/ from proto/.")
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 when gen/ is not what proto/ makes")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="mercat-gen-") as folder:
        fresh = Path(folder)
        try:
            generate(fresh)
        except GenerateError as error:
            print(error, file=sys.stderr)
            return 1
        if not options.check:
            install(fresh)
            return 0
        stale = differences(fresh)
    for line in stale:
        print(line, file=sys.stderr)
    if stale:
        print("gen/ is not what proto/ makes: run `make gen` and commit the result", file=sys.stderr)
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
