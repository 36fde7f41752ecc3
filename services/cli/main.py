"""The root of the command line: finds the command and turns a known failure into one sentence."""

import importlib
import os
import sys
from typing import Any

import typer
from rich.console import Console
from typer.core import TyperCommand, TyperGroup

HELP = "A gRPC-first marketplace and inference mesh for AI models."
# What `mercat --help` shows, by heading: the command, the module that registers it, and the first sentence of its
# documentation. A module is imported when one of its commands is asked for, so that the help is there at once.
COMMANDS: dict[str, dict[str, tuple[str, str]]] = {
    "This machine": {
        "up": ("up", "Starts Mercat on this machine and watches over it until Ctrl-C."),
        "status": ("operate", "Shows every process: state, process id, restarts."),
        "logs": ("operate", "Shows what the processes wrote."),
        "down": (
            "operate",
            "Ends Mercat: calls under way are finished, usage is written, then everything stops in order.",
        ),
        "restart": ("restart", "Restarts processes one after the other, while calls go on."),
        "serve": ("operate", "Hosts services in this process until SIGTERM, as an orchestrator does."),
        "migrate": ("operate", "Brings the tables of every service up to date."),
        "reindex": ("search", "Builds the search index anew from the catalogue; for administrators."),
        "secrets": ("secrets", "The keys that secrets lie under in the database."),
        "mail": ("mail", "Shows mail that went into a folder, for want of an SMTP server, the newest first."),
        "clock": ("clock", "The time of a platform with a test clock."),
        "config": ("config", "Prints and checks every setting."),
    },
    "Account": {
        "signup": ("account", "Makes an account and logs in."),
        "verify": ("account", "Confirms your email address by the code that was sent there."),
        "login": ("account", "Logs in; the session is kept for the next commands."),
        "logout": ("account", "Ends the session."),
        "whoami": ("account", "Shows who the commands run as."),
        "account": ("privacy", "What is known of you: given to you, and forgotten."),
        "password": ("password", "Your password."),
        "passkeys": ("passkeys", "Keys on your devices that sign you in."),
        "identities": ("elsewhere", "Accounts elsewhere that you sign in with."),
        "device": ("devices", "Devices that wait for you to let them in."),
        "sessions": ("sessions", "Where you are logged in."),
        "mfa": ("mfa", "A second factor for logging in."),
        "keys": ("keys", "API keys for programs."),
        "limits": ("limits", "How much accounts, keys and models may be called."),
        "org": ("organisations", "Organisations, and who may do what in them."),
        "audit": ("audit", "Sensitive acts: who did what, from where."),
        "webhooks": ("webhooks", "Events, posted to where you want them."),
    },
    "Models": {
        "search": ("search", "Finds published models: typos are forgiven, and what means the same is found too."),
        "similar": ("search", "Finds models whose descriptions mean nearly the same."),
        "explore": ("explore", "Ways to models other than words."),
        "favourites": ("following", "Models that you come back to."),
        "collections": ("following", "Models that belong together."),
        "publisher": ("publishers", "Who is behind models."),
        "follow": ("following", "Brings new versions of a publisher into your feed."),
        "unfollow": ("following", "Ends that."),
        "feed": ("following", "Lists what is new and what ends of models that you follow, like or call."),
        "reviews": ("ratings", "What accounts say of the models that they called."),
        "try": ("trying", "Runs a sample of a model with your account."),
        "chat": ("text", "Talks with a chat model."),
        "generate": ("text", "Goes on with a text, without a chat template."),
        "embed": ("text", "Turns texts into vectors of length 1; of several, shows how close each is to the first."),
        "tokens": ("text", "Counts a prompt's tokens."),
        "infer": ("infer", "Calls a model."),
        "batch": ("batch", "Calls models with every line of a file."),
        "jobs": ("jobs", "Calls that nobody waits for."),
        "quote": ("infer", "Shows what a call would cost, without running it."),
        "init": ("initiating", "Writes a model.yaml of what a model's file says, and a card."),
        "push": ("models", "Uploads a model and waits until it is validated; a refusal says exactly why."),
        "models": ("models", "Push, describe, price, review and publish models."),
        "access": ("access", "Gated models: asking for access, and letting others have it."),
        "uploads": ("uploads", "Files on their way to the platform."),
        "price": ("pricing", "What calls to models cost, and from when on."),
    },
    "Money": {
        "usage": ("usage", "Lists calls and what they cost."),
        "receipts": ("receipts", "Proof of what was run and what it cost."),
        "balance": ("wallet", "Shows what there is to spend."),
        "topup": ("wallet", "Adds credit."),
        "plan": ("plan", "What you pay by the month."),
        "invoices": ("invoices", "What was billed, and the calls behind it."),
        "cards": ("payments", "Cards that payments are charged to."),
        "payments": ("payments", "Payments by card."),
        "credits": ("credits", "Credit that was given to you, which calls spend first."),
        "budgets": ("budgets", "The most that calls may cost in a day or a month."),
        "transactions": ("wallet", "Lists what came and went other than by calls."),
        "earnings": ("wallet", "Shows what your models have earned and not been paid."),
        "payouts": ("payouts", "What your models earned, on its way to you."),
        "ledger": ("ledger", "The books."),
    },
}
_LARGE = ("models", "explore")  # groups whose commands are looked for at the top
_MODULES = {name: module for panel in COMMANDS.values() for name, (module, _) in panel.items()}


class Root(TyperGroup):
    """Imports a command's module when the command is asked for; lists them without importing any."""

    _listing = False

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        self.commands = {
            name: TyperCommand(name, help=sentence, rich_help_panel=panel)
            for panel, commands in COMMANDS.items()
            for name, (_, sentence) in commands.items()
        }
        self._imported: dict[str, Any] = {}

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        if self._listing or cmd_name not in self.commands:
            return self.commands.get(cmd_name)
        if cmd_name not in self._imported:
            if cmd_name not in COMMANDS["This machine"]:
                os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # failures are told in one sentence, once
            self._import(_MODULES[cmd_name])
        return self._imported.get(cmd_name)

    def _import(self, module: str) -> None:
        app = typer.Typer(rich_markup_mode="rich", callback=lambda: None)
        importlib.import_module(f"services.cli.{module}").register(app)
        self._imported |= vars(typer.main.get_group(app))["commands"]

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        if args and not args[0].startswith("-") and args[0] not in self.commands:
            inside = [name for name in _LARGE if args[0] in vars(self.get_command(ctx, name))["commands"]]
            if inside:
                there = " or ".join(f"`mercat {name} {args[0]}`" for name in inside)
                ctx.fail(f"No such command {args[0]!r}. There is {there}.")
        return super().resolve_command(ctx, args)

    def format_help(self, ctx: Any, formatter: Any) -> None:
        self._listing = True
        try:
            super().format_help(ctx, formatter)
        finally:
            self._listing = False


def build() -> typer.Typer:
    """The whole command. What a command returns is its exit status."""

    def ended(status: object, **_: object) -> None:
        if isinstance(status, int) and status:
            raise typer.Exit(status)

    return typer.Typer(
        name="mercat",
        help=HELP,
        cls=Root,
        callback=lambda: None,
        result_callback=ended,
        no_args_is_help=True,
        rich_markup_mode="rich",
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )


def main() -> None:
    """Exit status 0, 1 for a failure that has a sentence, 2 for a wrong command line, 3 when the server cannot be
    reached, 130 for Ctrl-C."""
    try:
        build()(prog_name="mercat")
    except Exception as error:
        if not isinstance(error, _known()):
            raise
        Console(stderr=True, soft_wrap=True, highlight=False).print(f"[bold red]mercat:[/] {_escaped(str(error))}")
        sys.exit(1)


def _known() -> tuple[type[Exception], ...]:
    """Failures whose text is for the person at the terminal."""
    from services.common.secrets.sources import SecretUnavailable
    from services.common.settings import SettingsError
    from services.embedded.errors import StartError

    return (StartError, SettingsError, SecretUnavailable)


def _escaped(text: str) -> str:
    return text.replace("[", "\\[")


if __name__ == "__main__":
    main()
