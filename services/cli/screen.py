"""What `mercat up` shows when it is ready: where things are, who may log in, and calls to paste."""

from collections.abc import Callable, Sequence

from rich.console import Console
from rich.markup import escape

from services.embedded.connection import Connection

Calls = Callable[[Connection], list[tuple[str, str]]]


def closing(connection: Connection, calls: Calls | None = None, console: Console | None = None) -> None:
    """Lines to be copied are printed bare, without a frame and without breaking them."""
    console = console or Console(highlight=False, soft_wrap=True)
    console.print()
    console.print("[bold]Mercat is ready[/]")
    rows = [
        ("gRPC", connection.grpc),
        ("REST", connection.rest),
        ("documentation", f"{connection.rest}/docs"),
        ("console", connection.console),
    ]
    if connection.tls is not None:
        authority = f"  (authority: {connection.tls.ca})" if connection.tls.ca else ""
        rows.append(("TLS", f"https://{connection.tls.address}{authority}"))
    _aligned(console, rows)
    if connection.accounts:
        console.print("\n[bold]Accounts[/]")
        accounts = connection.accounts.items()
        _aligned(console, [(name, a.email, a.password, a.api_key) for name, a in accounts])
    if connection.models:
        console.print(f"\n[bold]Models[/]  {escape(', '.join(connection.models))}")
    for title, text in [*_first_calls(connection), *(calls(connection) if calls is not None else [])]:
        console.print(f"\n[bold]{escape(title)}[/]")
        console.print(text, markup=False)
    console.print()


def _aligned(console: Console, rows: Sequence[Sequence[str]]) -> None:
    """Columns that are never cut, however narrow the terminal."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        line = "  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True))
        console.print(f"  {line.rstrip()}", markup=False)


def _first_calls(connection: Connection) -> list[tuple[str, str]]:
    return [
        ("What there is", f"grpcurl -plaintext {connection.grpc} list"),
        ("Find a model", f"curl '{connection.rest}/v1/search?query=text'"),
    ]
