"""Measures, side by side.

python -m benchmarks                            everything; writes benchmarks/RESULTS.md and results.png
python -m benchmarks tiny rest --seconds 3      some groups; prints only
"""

import argparse
import json
import os
import shlex
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

from benchmarks import peers, report
from benchmarks.groups import GROUPS
from benchmarks.load import LoadError
from benchmarks.machine import describe
from benchmarks.measure import Result
from benchmarks.peers import PeerError
from benchmarks.stage import Options, Stage

RESULTS = Path(__file__).with_name("RESULTS.md")
PICTURE = Path(__file__).with_name("results.png")


def tell(line: str) -> None:
    print(f"  {line}", flush=True)


def parse(args: Sequence[str] | None = None) -> tuple[list[str], Options]:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    default = Options()
    parser.add_argument("groups", nargs="*", metavar="GROUP", help=f"of {', '.join(GROUPS)} [all]")
    parser.add_argument("--seconds", type=float, default=default.seconds, help="of one round [%(default)g]")
    parser.add_argument("--rounds", type=int, default=default.rounds, help="of each side [%(default)s]")
    parser.add_argument("--in-flight", type=int, default=default.in_flight, help="calls at a time [%(default)s]")
    parser.add_argument("--calls", type=int, default=default.calls, help="of the group memory [%(default)s]")
    parser.add_argument("--month", type=int, default=default.month, help="calls of the month proven [%(default)s]")
    parser.add_argument("--no-peers", action="store_true", help="only Mercat and the floors")
    given = parser.parse_args(args)
    if unknown := [name for name in given.groups if name not in GROUPS]:
        parser.error(f"there is no group {unknown[0]}; there are {', '.join(GROUPS)}")
    if given.rounds < 1 or given.seconds <= 0 or given.in_flight < 1 or given.calls < 20_000 or given.month < 1:
        parser.error("--rounds, --seconds, --in-flight and --month must be more than nothing, --calls at least 20000")
    threads = max(1, (os.cpu_count() or 2) // 2)
    options = Options(
        given.seconds, given.rounds, given.in_flight, given.calls, threads, not given.no_peers, given.month
    )
    return given.groups or list(GROUPS), options


def measure(stage: Stage, groups: Sequence[str]) -> tuple[list[Result], dict[str, str]]:
    """Runs the groups; answers what they found, and why others could not be measured."""
    results: list[Result] = []
    missing: dict[str, str] = {}
    for number, name in enumerate(groups, 1):
        group = GROUPS[name]
        print(f"\n[{number}/{len(groups)}] {name}: {group.TITLE}; {minutes(group.seconds(stage.options))}", flush=True)
        try:
            result = group.run(stage)
        except (LoadError, PeerError) as error:
            tell(f"not measured: {error}")
            missing[name] = str(error)
            continue
        except Exception as error:  # a group that breaks takes nobody else's figures with it
            traceback.print_exc()
            missing[name] = f"{type(error).__name__}: {error}"
            continue
        show(result)
        results.append(result)
    return results, missing


def show(result: Result) -> None:
    if result.rows:
        print(f"\n{report.table(result.rows)}\n\nwhere the time goes, µs of processor time per call:")
        print(report.time_table(result.rows))
    for note in result.notes:
        print(f"note: {note}")
    print(report.figures(result.figures), flush=True)


def minutes(seconds: float) -> str:
    return f"about {seconds / 60:.0f} min" if seconds >= 90 else f"about {seconds:.0f} s"


def write(results: Sequence[Result], missing: Mapping[str, str], money: Sequence[str], *, took: float) -> None:
    """RESULTS.md and its picture."""
    machine = describe()
    for name, text in machine.items():
        tell(f"{name}: {text}")
    args = shlex.join(sys.argv[1:])
    text = report.markdown(
        results, machine, command=f'make bench ARGS="{args}"' if args else "make bench",
        when=f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC", took=minutes(took), missing=missing, money=money,
        picture=draw(results),
    )  # fmt: skip
    RESULTS.write_text(text, encoding="utf-8")
    print(f"\nWrote {os.path.relpath(RESULTS)}.")


def draw(results: Sequence[Result]) -> str:
    """Draws the picture; answers its file's name, or nothing when there is no matplotlib to draw it with."""
    try:
        python = peers.python("plot", tell)
    except PeerError as error:
        tell(f"no picture: {error}")
        return ""
    with tempfile.NamedTemporaryFile("w", suffix=".json", encoding="utf-8") as file:
        json.dump(report.plain(results), file)
        file.flush()
        script = Path(__file__).with_name("plot.py")
        subprocess.run([str(python), str(script), file.name, str(PICTURE)], check=True)
    return PICTURE.name


def main(args: Sequence[str] | None = None) -> int:
    groups, options = parse(args)
    began = time.monotonic()
    print(f"{len(groups)} groups, {minutes(sum(GROUPS[g].seconds(options) for g in groups))} on a quiet machine.")
    with tempfile.TemporaryDirectory(prefix="mercat-bench-") as folder, Stage(options, Path(folder), tell) as stage:
        results, missing = measure(stage, groups)
        stage.close()
    for good, line in stage.money:
        print(f"{'✓' if good else '✗'} money: {line}")
    if groups == list(GROUPS) and options.peers:
        write(results, missing, [line for _, line in stage.money], took=time.monotonic() - began)
    return 0 if all(good for good, _ in stage.money) and not missing else 1


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit("\nStopped; nothing was written.")
