"""What every command that calls the platform has in common: where to, who as, JSON or not, and how it fails."""

import functools
import inspect
import time
from collections.abc import Callable
from functools import cached_property
from typing import Annotated, Any, Concatenate, ParamSpec

import typer

from services.cli import output
from services.cli.client import Client, Unreachable
from services.cli.credentials import Credentials
from services.cli.session import DEFAULT_PROFILE, Logins, Refusal, Target, connection, find_target
from services.cli.signer import load as load_signer
from services.common.errors import MercatError

P = ParamSpec("P")
_PANEL = "Connection"
COMMON: dict[str, Any] = {
    "as_json": Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")],
    "server": Annotated[
        str,
        typer.Option(
            envvar="MERCAT_SERVER", metavar="HOST:PORT", rich_help_panel=_PANEL,
            help="Where Mercat is; https://HOST:PORT for TLS. Otherwise as $MERCAT_HOME/connection.json says.",
        ),
    ],
    "api_key": Annotated[
        str, typer.Option(envvar="MERCAT_API_KEY", metavar="KEY", rich_help_panel=_PANEL, help="Call with this key.")
    ],
    "signing_key": Annotated[
        str,
        typer.Option(
            envvar="MERCAT_SIGNING_KEY", metavar="FILE", rich_help_panel=_PANEL,
            help="Sign calls of --api-key with this, as `mercat keys signing create` made it.",
        ),
    ],
    "profile": Annotated[
        str,
        typer.Option(envvar="MERCAT_PROFILE", metavar="NAME", rich_help_panel=_PANEL, help="Which of several logins."),
    ],
}  # fmt: skip
_DEFAULTS: dict[str, Any] = {"as_json": False, "server": "", "api_key": "", "signing_key": "", "profile": ""}


class Session:
    """What a command is given: the client, and whether it prints JSON."""

    def __init__(self, *, as_json: bool, server: str, api_key: str, profile: str, signing_key: str = "") -> None:
        self.json = as_json
        self.api_key = api_key
        self._signing_key = signing_key if api_key else ""
        self.profile = profile or DEFAULT_PROFILE
        self._asked = (server, profile)

    @cached_property
    def target(self) -> Target:
        return find_target(*self._asked, Logins())

    @cached_property
    def credentials(self) -> Credentials:
        return Credentials(self.target, self.api_key, self.profile, Logins(), time.time)

    @cached_property
    def client(self) -> Client:
        if output.is_terminal():
            self.credentials.ask = self.ask
        signer = load_signer(self._signing_key) if self._signing_key else None
        return Client(self.target, self.credentials, signer)

    def ask(self, what: str) -> str:
        """Asks the person at the terminal for their `password`, or a `code` of their second factor."""
        if not output.is_terminal():
            raise Refusal(f"There is no terminal to ask for a {what}.", "run it where somebody can type")
        if what == "code":
            return str(typer.prompt("Code of your authenticator app, or a recovery code", err=True))
        return str(typer.prompt("Password", hide_input=True, err=True))

    def own_name(self) -> str:
        """The handle of the organisation behind the credential: the first half of its models' names."""
        login = None if self.api_key else self.credentials.login()
        if login is not None:
            return login.organisation or login.username
        from mercat.auth.v1 import auth_pb2

        return self.client.auth.GetProfile(auth_pb2.GetProfileRequest()).profile.organisation

    def full_name(self, model: str) -> str:
        """`publisher/name` of what was typed; without a publisher the caller's own. Raises BadParameter where nobody is
        logged in who could have one."""
        if "/" in model:
            return model
        if not self.api_key and self.credentials.login() is None:
            raise typer.BadParameter(f"{model!r}: write it as publisher/name, or log in where it is a model of yours")
        return f"{self.own_name()}/{model}"

    def version_of(self, reference: str) -> tuple[str, str]:
        """Model and version of `publisher/name@1.4.2`. Raises BadParameter when the version is missing."""
        model, at, version = reference.partition("@")
        if not at or not version or not model:
            raise typer.BadParameter(f"{reference!r} names no version; write it as publisher/name@1.0.0")
        return self.full_name(model), version

    def close(self) -> None:
        if "client" in self.__dict__:
            self.client.close()


def command(function: Callable[Concatenate[Session, P], int | None]) -> Callable[..., int | None]:
    """Makes a command of a function that takes a session: adds the common options and prints failures."""

    @functools.wraps(function)
    def run(**given: Any) -> int | None:
        session = Session(**{name: given.pop(name) for name in COMMON})
        try:
            return function(session, **given)  # type: ignore[call-arg]
        except (MercatError, Unreachable, Refusal) as error:
            return output.fail(error, as_json=session.json)
        finally:
            session.close()

    _, *own = inspect.signature(function, eval_str=True).parameters.values()
    common = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=_DEFAULTS[name], annotation=kind)
        for name, kind in COMMON.items()
    ]
    own = [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in own]
    run.__signature__ = inspect.Signature([*own, *common])  # type: ignore[attr-defined]
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in [*own, *common]}
    return run


def demo_account(name: str) -> tuple[str, str]:
    """Email and password of a demo account. Refusal when `connection.json` has none of that name."""
    accounts = connection().get("accounts") or {}
    account = accounts.get(name) if isinstance(accounts, dict) else None
    if not isinstance(account, dict):
        known = ", ".join(accounts) or "none"
        raise Refusal(
            f"connection.json has no account {name}; it has: {known}.",
            "run it where `mercat up` runs, or name its home with MERCAT_HOME",
        )
    return str(account.get("email", "")), str(account.get("password", ""))
