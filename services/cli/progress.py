"""A line for each process as it starts, restarts or stops."""

from rich.console import Console

from services.embedded import status
from services.embedded.process import State

_WIDTH = 12


class Progress:
    """Prints what changed since it was last shown; works the same on a terminal and in a file."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console(highlight=False, soft_wrap=True)
        self._seen: dict[str, tuple[str, int, str]] = {}
        self._note = ""
        self._phase = ""

    def show(self, now: status.Status) -> None:
        for part in now.parts:
            key = (part.state, part.restarts, part.detail)
            if self._seen.get(part.name) != key:
                self._seen[part.name] = key
                self._part(part)
        if now.note and now.note != self._note:
            self.say(now.note)
        self._note = now.note
        if now.phase != self._phase:
            self._phase = now.phase
            if now.phase == status.READY:
                self.say(f"[green]ready[/] after {now.ready - now.started:.1f} s")
            elif now.phase == status.STOPPED:
                self.say("stopped")

    def say(self, text: str) -> None:
        self.console.print(f"  {text}")

    def _part(self, part: status.Part) -> None:
        name = f"{part.name:<{_WIDTH}}"
        if part.state == State.READY:
            again = f" [yellow]({part.detail})[/]" if part.restarts else ""
            self.console.print(f"  [green]✓[/] {name} {part.ready_seconds:5.2f} s  [dim]process {part.pid}[/]{again}")
        elif part.state == status.EXTERNAL:
            self.console.print(f"  [green]✓[/] {name} [dim]not started: given by its URL[/]")
        elif part.state == State.RESTARTING:
            self.console.print(f"  [yellow]![/] {name} {part.detail}")
        elif part.state == State.STOPPED:
            self.console.print(f"  [dim]· {name} stopped[/]")
