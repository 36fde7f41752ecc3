"""Measures, side by side.

python -m benchmarks                            everything; writes benchmarks/RESULTS.md and results.png
python -m benchmarks tiny rest --seconds 3      some groups; prints only
python -m benchmarks tiny rest --write          some groups; replaces their part of RESULTS.md as well
"""

import argparse
import json
import os
import shlex
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from benchmarks import kept, peers, report
from benchmarks.groups import GROUPS
from benchmarks.kept import Kept, Run
from benchmarks.load import LoadError
from benchmarks.machine import describe
from benchmarks.measure import Result
from benchmarks.peers import PeerError
from benchmarks.stage import Options, Stage

RESULTS = Path(__file__).with_name("RESULTS.md")
PICTURE = Path(__file__).with_name("results.png")


def tell(line: str) -> None:
    print(f"  {line}", flush=True)


def parse(args: Sequence[str] | None = None) -> tuple[list[str], Options, bool]:
    """The groups, how to run them, and whether what they find is kept."""
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
    parser.add_argument("--write", action="store_true", help="what some groups find into RESULTS.md")
    given = parser.parse_args(args)
    if unknown := [name for name in given.groups if name not in GROUPS]:
        parser.error(f"there is no group {unknown[0]}; there are {', '.join(GROUPS)}")
    if given.rounds < 1 or given.seconds <= 0 or given.in_flight < 1 or given.calls < 20_000 or given.month < 1:
        parser.error("--rounds, --seconds, --in-flight and --month must be more than nothing, --calls at least 20000")
    threads = max(1, (os.cpu_count() or 2) // 2)
    options = Options(
        given.seconds, given.rounds, given.in_flight, given.calls, threads, not given.no_peers, given.month
    )
    if given.no_peers and given.write:
        parser.error("--write: RESULTS.md is of runs with the peers")
    return given.groups or list(GROUPS), options, (given.write or not given.groups) and options.peers


def measure(stage: Stage, groups: Sequence[str]) -> tuple[list[Result], int]:
    """Runs the groups; answers what they found, and how many could not be measured. Ctrl-C or SIGTERM ends it after
    the groups that are measured."""
    results: list[Result] = []
    missing = 0
    for number, name in enumerate(groups, 1):
        group = GROUPS[name]
        print(f"\n[{number}/{len(groups)}] {name}: {group.TITLE}; {minutes(group.seconds(stage.options))}", flush=True)
        try:
            result = group.run(stage)
        except (LoadError, PeerError) as error:
            tell(f"not measured: {error}")
            missing += 1
            continue
        except KeyboardInterrupt:
            print(f"\nStopped; {name} and what comes after it is not measured.", flush=True)
            return results, missing + len(groups) - number + 1
        except Exception:  # a group that breaks takes nobody else's figures with it
            traceback.print_exc()
            missing += 1
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


def write(results: Sequence[Result], money: Sequence[str], *, took: float) -> None:
    """What was found into results.json, beside what other groups found before; RESULTS.md and its picture from all."""
    machine = describe()
    for name, text in machine.items():
        tell(f"{name}: {text}")
    args = shlex.join(sys.argv[1:])
    command = f'make bench ARGS="{args}"' if args else "make bench"
    run = Run(command, f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC", minutes(took), machine, money)
    known = kept.load() | {result.group: Kept(result, run) for result in results}
    known = {name: known[name] for name in GROUPS if name in known}
    kept.save(known)
    missing = [name for name in GROUPS if name not in known]
    picture = draw([one.result for one in known.values()])
    RESULTS.write_text(report.markdown(known, missing, picture), encoding="utf-8")
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
    groups, options, keep = parse(args)
    began = time.monotonic()
    print(f"{len(groups)} groups, {minutes(sum(GROUPS[g].seconds(options) for g in groups))} on a quiet machine.")
    with tempfile.TemporaryDirectory(prefix="mercat-bench-") as folder, Stage(options, Path(folder), tell) as stage:
        results, missing = measure(stage, groups)
        stage.close()
    for good, line in stage.money:
        print(f"{'✓' if good else '✗'} money: {line}")
    if keep and results:
        write(results, [line for _, line in stage.money], took=time.monotonic() - began)
    return 0 if all(good for good, _ in stage.money) and not missing else 1


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit("\nStopped; nothing was written.")
