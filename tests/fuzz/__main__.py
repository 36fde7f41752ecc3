"""`python -m tests.fuzz TARGET --runs 1000000 [--seed N] [--engine atheris|loop]`, or `list`.

With atheris, where it is installed, inputs that reach new code are gone on from; the loop changes seeds blindly. Exit
status 1 when anything crashed: the input is printed in base64, and `--input` runs it again."""

import argparse
import asyncio
import base64
import importlib.util
import os
import random
import re
import secrets
import subprocess
import sys
import tempfile
import time
import traceback
from pathlib import Path

_SLOW = 1.0  # seconds of a processor that no input may take


def loop(name: str, runs: int, seed: int) -> int:
    """Crashes of so many runs, each kind told once."""
    from tests.fuzz.mutate import Mutator
    from tests.fuzz.targets import TARGETS

    target = TARGETS[name]()
    mutator = Mutator(target.seeds, target.longest, random.Random(seed))
    for data in target.seeds:
        target.run(data)
    crashes, told = 0, set()
    for _ in range(runs):
        data, began = mutator.make(), time.process_time()
        try:
            target.run(data)
            if time.process_time() - began > _SLOW:
                raise TimeoutError(f"{time.process_time() - began:.1f} s")
        except Exception as error:
            crashes += 1
            frame = traceback.extract_tb(error.__traceback__)[-1]
            where = (type(error).__name__, frame.filename, frame.lineno)
            if where not in told:
                told.add(where)
                print(f"{name}: {type(error).__name__} at {frame.filename}:{frame.lineno}: {str(error)[:200]}")
                print(f"  --input {base64.b64encode(data).decode()}")
            continue
        if len(data) % 17 == 0:
            mutator.take(data)
    return crashes


def child(name: str, runs: int, seed: int, corpus: str) -> None:
    """Atheris's own run, in a process that it ends itself."""
    import atheris  # type: ignore[import-not-found]

    with atheris.instrument_imports(include=["services", "gateway_rest"]):
        from tests.fuzz.targets import TARGETS

        target = TARGETS[name]()
    for number, data in enumerate(target.seeds):
        (Path(corpus) / f"seed-{number}").write_bytes(data)

    async def fuzz() -> None:
        options = [
            f"-runs={runs}",
            f"-seed={seed}",
            f"-max_len={target.longest}",
            "-timeout=30",
            "-print_final_stats=1",
        ]
        atheris.Setup([sys.argv[0], *options, f"-artifact_prefix={corpus}/crash-", corpus], target.run)
        atheris.Fuzz()

    asyncio.run(fuzz())


def atheris_run(name: str, runs: int, seed: int) -> tuple[int, int]:
    """Runs and crashes."""
    with tempfile.TemporaryDirectory(prefix="mercat-fuzz-") as corpus:
        argv = [sys.executable, "-m", "tests.fuzz", name, "--runs", str(runs), "--seed", str(seed), "--child", corpus]
        done = subprocess.run(argv, capture_output=True, text=True, check=False)
        counted = re.search(r"stat::number_of_executed_units:\s*(\d+)", done.stderr)
        if done.returncode:
            print(done.stderr[-4000:])
            for path in Path(corpus).glob("crash-*"):
                print(f"  --input {base64.b64encode(path.read_bytes()).decode()}")
    return int(counted[1]) if counted else 0, int(done.returncode != 0)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("target", help="a name, all, or list")
    parser.add_argument("--runs", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=secrets.randbelow(2**31))
    parser.add_argument("--engine", choices=["atheris", "loop"])
    parser.add_argument("--input", help="one input, in base64, to run again")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:  # before anything is imported that it instruments
        child(args.target, args.runs, args.seed, args.child)
        return 0
    from tests.fuzz.targets import TARGETS

    if args.target == "list":
        print("\n".join(TARGETS))
        return 0
    if args.target not in (*TARGETS, "all"):
        parser.error(f"there is no target {args.target}; there are {', '.join(TARGETS)}")
    there = importlib.util.find_spec("atheris") is not None
    engine, failed = args.engine or ("atheris" if there else "loop"), 0
    for name in TARGETS if args.target == "all" else [args.target]:
        if args.input is not None:
            asyncio.run(_once(name, base64.b64decode(args.input)))
            continue
        began = time.monotonic()
        if engine == "atheris":
            runs, crashes = atheris_run(name, args.runs, args.seed)
        else:
            runs, crashes = args.runs, asyncio.run(_loop(name, args.runs, args.seed))
        took = time.monotonic() - began
        print(f"{name}: {runs} runs, {crashes} crashes, seed {args.seed}, {engine}, {took:.0f} s", flush=True)
        failed += bool(crashes or not runs)
    return int(failed > 0)


async def _loop(name: str, runs: int, seed: int) -> int:
    return loop(name, runs, seed)


async def _once(name: str, data: bytes) -> None:
    from tests.fuzz.targets import TARGETS

    TARGETS[name]().run(data)
    print(f"{name}: no crash")


if __name__ == "__main__":
    os.environ.setdefault("PYTHONHASHSEED", "0")
    sys.exit(main())
