"""What a step that takes long is doing, on standard error: a bar or a spinner on a terminal, lines elsewhere, such as
in the log of a build."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.markup import escape
from rich.progress import BarColumn, DownloadColumn, Progress, ProgressColumn, SpinnerColumn, TextColumn
from rich.progress import TransferSpeedColumn as SpeedColumn

from services.cli import output

_AGAIN = 5.0  # seconds after which a log is told how far it is


@contextmanager
def step(what: str, total: int = 0, *, quiet: bool = False) -> Iterator[Callable[[int], None]]:
    """While it lasts, a step is shown; the function that it gives is told how many of `total` bytes are done."""
    to = output.console(error=True)
    text = escape(output.clean(what))
    if quiet:
        yield lambda done: None
    elif not to.is_terminal:
        to.print(f"{text}, {output.size(total)} …" if total else f"{text} …")
        yield _by_lines(text, total)
    else:
        columns: tuple[ProgressColumn, ...] = (TextColumn("{task.description}"),)
        columns += (BarColumn(), DownloadColumn(), SpeedColumn()) if total else (SpinnerColumn(),)
        with Progress(*columns, console=to, transient=True) as bars:
            bar = bars.add_task(text, total=total or None)
            yield lambda done: bars.update(bar, completed=done)


def _by_lines(text: str, total: int) -> Callable[[int], None]:
    last = time.monotonic()

    def tell(done: int) -> None:
        nonlocal last
        if total and time.monotonic() - last >= _AGAIN:
            last = time.monotonic()
            output.console(error=True).print(f"{text}, {done / total:.0%} of {output.size(total)} …")

    return tell
