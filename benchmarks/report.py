"""What runs found, for the terminal and as Markdown."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict

from benchmarks.kept import Kept
from benchmarks.measure import Figure, Result, Row

_HOW = """\
A ratio is the median of the ratios within each round, in which the sides ran one after the other.
[README.md](README.md) says how each figure is taken; which run measured what is at the end.
"""


def table(rows: Sequence[Row]) -> str:
    """Rows as lines of a terminal."""
    width = max(len(row.name) for row in rows)
    lines = [f"{'':{width}} {'per second':>11} {'least – most':>17} {'p50 ms':>8} {'p99 ms':>8} {'failed':>6}"]
    for row in rows:
        spread = f"{row.least:,.0f} – {row.most:,.0f}"
        lines.append(
            f"{row.name:{width}} {row.per_second:11,.0f} {spread:>17} {row.p50_ms:8.2f} {row.p99_ms:8.2f} "
            f"{row.failed:6}"
        )
    return "\n".join(lines)


def figures(found: Sequence[Figure]) -> str:
    """Figures as lines of a terminal."""
    return "\n".join(f"{'✓' if f.reached else '✗'} {f.name}: {value(f)} (reach {reach(f)}; {spread(f)})" for f in found)


def time_table(rows: Sequence[Row]) -> str:
    """Processor time per call by process, as lines of a terminal."""
    width = max(len(row.name) for row in rows)
    return "\n".join(f"{row.name:{width}}  {_cpu(row.cpu_us)}" for row in rows if row.cpu_us)


def value(figure: Figure) -> str:
    return f"{figure.value:.2f}{f' {figure.unit}' if figure.unit else ''}"


def reach(figure: Figure) -> str:
    sign = "≤" if figure.at_most else "≥"
    aim = f", aim {figure.aim:g}" if figure.aim is not None else ""
    return f"{sign} {figure.reach:g}{f' {figure.unit}' if figure.unit else ''}{aim}"


def spread(figure: Figure) -> str:
    if len(figure.rounds) == 1:
        return "once"
    return f"{min(figure.rounds):.2f} to {max(figure.rounds):.2f} in {len(figure.rounds)} rounds"


def markdown(kept: Mapping[str, Kept], missing: Sequence[str], picture: str) -> str:
    """RESULTS.md: nothing in it that a run did not print."""
    figures = [[*_figure(f), one.run.when] for one in kept.values() for f in one.result.figures]
    parts = ["# Results\n", _HOW, _grid(["figure", "found", "reach", "reached", "spread", "measured"], figures)]
    parts += [f"`{group}` was not measured.\n" for group in missing]
    parts += [f"![The figures, drawn]({picture})\n"] if picture else []
    for one in kept.values():
        parts += _section(one.result)
    runs: dict[str, list[str]] = {}
    of = {one.run.when: one.run for one in kept.values()}
    for group, one in kept.items():
        runs.setdefault(one.run.when, []).append(group)
    parts.append("## Runs\n")
    for when, groups in runs.items():
        run = of[when]
        parts.append(f"### {when}\n")
        parts.append(f"`{run.command}`, in {run.took}; measured: {', '.join(groups)}.\n")
        parts.append("\n".join(f"- money: {line}" for line in run.money) + "\n")
        parts.append(_grid(["", ""], [[name, text] for name, text in run.machine.items()]))
    return "\n".join(parts).rstrip() + "\n"


def _section(result: Result) -> list[str]:
    parts = [f"## {result.title}\n"]
    if result.rows:
        head = ["", "per second", "least – most", "p50 ms", "p99 ms", "failed"]
        parts.append(_grid(head, [_row(row) for row in result.rows]))
        parts.append("Where the time goes, processor time per call, µs:\n")
        names = list(dict.fromkeys(name for row in result.rows for name in row.cpu_us))
        cells = [[row.name, *(_us(row.cpu_us.get(name)) for name in names)] for row in result.rows if row.cpu_us]
        parts.append(_grid(["", *names], cells))
    parts += [f"- {note}" for note in result.notes]
    return [*parts, ""] if result.notes else parts


def plain(results: Sequence[Result]) -> dict:
    """What a run found as JSON can hold it, for the picture."""
    made = [asdict(result) for result in results]
    for result, one in zip(results, made, strict=True):
        one["figures"] = [
            {"name": f.name, "of_reach": f.of_reach, "reached": f.reached, "text": f"{value(f)}, reach {reach(f)}"}
            for f in result.figures
        ]
    return {"results": made}


def _figure(f: Figure) -> list[str]:
    return [f.name, value(f), reach(f), "yes" if f.reached else "**no**", spread(f)]


def _row(row: Row) -> list[str]:
    numbers = [
        f"{row.per_second:,.0f}",
        f"{row.least:,.0f} – {row.most:,.0f}",
        f"{row.p50_ms:.2f}",
        f"{row.p99_ms:.2f}",
    ]
    return [row.name, *numbers, str(row.failed)]


def _us(microseconds: float | None) -> str:
    return "" if microseconds is None else f"{microseconds:,.0f}"


def _cpu(cpu: Mapping[str, float]) -> str:
    return "  ".join(f"{name} {us:,.0f}" for name, us in cpu.items() if us >= 0.5)


def _grid(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    lines += ["| " + " | ".join(cells) + " |" for cells in rows]
    return "\n".join(lines) + "\n"
