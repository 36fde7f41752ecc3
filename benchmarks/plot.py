"""Draws a run. Runs in the environment `plot`, which has matplotlib.

python plot.py RUN.json PICTURE.png
"""

import json
import sys
import textwrap

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt

_GOOD, _SHORT, _PLAIN = "#2f7d4f", "#c2553d", "#4c6a92"


def draw(run: dict, picture: str) -> None:
    """Figures beside their reach; calls per second, processor time per call, and memory where it was measured."""
    found = run["results"]
    figures = [f for r in found for f in r["figures"]]
    curves = {name: points for r in found for name, points in r["curves"].items()}
    tiny = next((r for r in found if r["group"] == "tiny"), {"rows": [], "title": ""})
    rows = [row for row in tiny["rows"] if "1 in flight" not in row["name"]]
    right = ["rates", "time", *(["memory"] if curves else [])]
    size = (20, max(12, 0.6 * len(figures)))
    figure, axes = plt.subplot_mosaic([["reach", name] for name in right], figsize=size, layout="constrained")
    _reach(axes["reach"], figures)
    _rates(axes["rates"], rows)
    _time(axes["time"], [row for row in rows if row["cpu_us"]])
    if curves:
        _memory(axes["memory"], curves)
    figure.savefig(picture, dpi=80)


def _reach(axes: plt.Axes, figures: list[dict]) -> None:
    values = [min(f["of_reach"], 4) for f in figures]
    names = [f"{textwrap.shorten(f['name'], 90, placeholder=' …')}\n{f['text']}" for f in figures]
    axes.barh(names, values, color=[_GOOD if f["reached"] else _SHORT for f in figures])
    axes.tick_params("y", labelsize=9)
    axes.margins(y=0.01)
    axes.axvline(1, color="black", linewidth=1)
    axes.set_title("Each figure ÷ what it should reach")
    axes.invert_yaxis()


def _rates(axes: plt.Axes, rows: list[dict]) -> None:
    rates = [row["per_second"] for row in rows]
    below = [row["per_second"] - row["least"] for row in rows]
    above = [row["most"] - row["per_second"] for row in rows]
    axes.barh([row["name"] for row in rows], rates, xerr=[below, above], color=_PLAIN, capsize=3)
    axes.set_title("Calls per second, tiny model")
    axes.invert_yaxis()


def _time(axes: plt.Axes, rows: list[dict]) -> None:
    left = [0.0] * len(rows)
    axes.set_prop_cycle(color=plt.get_cmap("tab20").colors)
    for process in dict.fromkeys(name for row in rows for name in row["cpu_us"]):
        width = [row["cpu_us"].get(process, 0.0) for row in rows]
        if max(width) >= 1:
            axes.barh([row["name"] for row in rows], width, left=left, label=process)
            left = [a + b for a, b in zip(left, width, strict=True)]
    axes.margins(x=0.05)
    axes.set_title("Processor time per call, tiny model, µs")
    axes.invert_yaxis()
    if rows:
        axes.legend(loc="center left", bbox_to_anchor=(1, 0.5))


def _memory(axes: plt.Axes, curves: dict[str, list[list[float]]]) -> None:
    for name, points in curves.items():
        axes.plot([x for x, _ in points], [y for _, y in points], marker="o", markersize=3, label=name)
    axes.set_title("Memory of each process's own by calls answered, MiB")
    axes.margins(y=0.1)
    axes.set_ylim(bottom=0)
    axes.xaxis.set_major_formatter("{x:,.0f}")
    if curves:
        axes.legend()


if __name__ == "__main__":
    with open(sys.argv[1], encoding="utf-8") as file:  # noqa: PTH123
        draw(json.load(file), sys.argv[2])
