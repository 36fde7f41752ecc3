"""What `mercat up` shows when it is ready: where things are, who may log in, and calls to paste."""

from collections.abc import Callable

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from services.embedded.connection import Connection

Calls = Callable[[Connection], list[tuple[str, str]]]


def closing(connection: Connection, calls: Calls | None = None, console: Console | None = None) -> None:
    """Lines to be copied are printed bare, without a frame and without breaking them."""
    console = console or Console(highlight=False, soft_wrap=True)
    console.print()
    console.print("[bold]Mercat is ready[/]")
    addresses = Table.grid(padding=(0, 2))
    addresses.add_row("  gRPC", connection.grpc)
    addresses.add_row("  REST", connection.rest)
    addresses.add_row("  documentation", f"{connection.rest}/docs")
    addresses.add_row("  console", connection.console)
    if connection.tls is not None:
        addresses.add_row("  TLS", f"https://{connection.tls.address}  (authority: {connection.tls.ca})")
    console.print(addresses)
    if connection.accounts:
        console.print("\n[bold]Accounts[/]")
        accounts = Table.grid(padding=(0, 2))
        for name, account in connection.accounts.items():
            accounts.add_row(f"  {name}", account.email, account.password, account.api_key)
        console.print(accounts)
    if connection.models:
        console.print(f"\n[bold]Models[/]  {escape(', '.join(connection.models))}")
    for title, text in [*_first_calls(connection), *(calls(connection) if calls is not None else [])]:
        console.print(f"\n[bold]{escape(title)}[/]")
        console.print(text, markup=False)
    console.print()


def _first_calls(connection: Connection) -> list[tuple[str, str]]:
    return [
        ("What there is", f"grpcurl -plaintext {connection.grpc} list"),
        ("Find a model", f"curl '{connection.rest}/v1/search?query=text'"),
    ]
