"""The root of the command line: gathers the commands and turns a known failure into one sentence."""

import importlib
import importlib.util
import sys

import click
import typer
from rich.console import Console

from services.common.settings import SettingsError
from services.embedded.errors import StartError

# Modules that add commands by `register(app)`, in the order of `mercat --help`.
MODULES = ("up", "operate", "config", "account", "models", "inference", "billing")

Failure = (StartError, SettingsError)


def build() -> typer.Typer:
    """The command with all that is installed of it."""
    app = typer.Typer(
        name="mercat",
        help="A gRPC-first marketplace and inference mesh for AI models.",
        no_args_is_help=True,
        rich_markup_mode="rich",
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    for name in MODULES:
        if importlib.util.find_spec(f"services.cli.{name}") is not None:
            importlib.import_module(f"services.cli.{name}").register(app)
    return app


def main() -> None:
    """Exit status 0, or 1 for a failure that has a sentence, 2 for a wrong command line, 130 for Ctrl-C."""
    try:
        status = build()(standalone_mode=False)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        sys.exit(130)
    except Failure as error:
        Console(stderr=True, soft_wrap=True, highlight=False).print(f"[bold red]mercat:[/] {_escaped(str(error))}")
        sys.exit(1)
    sys.exit(status if isinstance(status, int) else 0)


def _escaped(text: str) -> str:
    return text.replace("[", "\\[")


if __name__ == "__main__":
    main()
