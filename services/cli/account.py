"""`mercat signup`, `login`, `logout`, `whoami`."""

import sys
from typing import Annotated

import typer
from mercat.auth.v1 import auth_pb2

from services.cli import output
from services.cli.command import Session, command, demo_account
from services.cli.session import Refusal

_STDIN = typer.Option("--password-stdin", help="Read the password from standard input instead of asking.")


def register(app: typer.Typer) -> None:
    for function in (signup, login, logout, whoami):
        app.command()(command(function))


def _password(from_stdin: bool, *, confirm: bool) -> str:
    if from_stdin:
        return sys.stdin.readline().rstrip("\r\n")
    if not output.is_terminal():
        raise Refusal("There is no terminal to ask for a password.", "give it with --password-stdin")
    asked: str = typer.prompt("Password", hide_input=True, confirmation_prompt=confirm, err=True)
    return asked


def signup(
    session: Session,
    email: Annotated[str, typer.Argument(help="Where mail reaches you.")],
    username: Annotated[str, typer.Argument(help="The first half of your models' names.")],
    publisher: Annotated[bool, typer.Option("--publisher", help="May push and sell models.")] = False,
    display_name: Annotated[str, typer.Option("--name", help="What people call you.")] = "",
    password_stdin: Annotated[bool, _STDIN] = False,
) -> None:
    """Makes an account and logs in.

    Examples:

      mercat signup ada@example.com ada

      pass show mercat | mercat signup ada@example.com ada --publisher --password-stdin
    """
    request = auth_pb2.SignUpRequest(
        email=email, username=username, display_name=display_name,
        password=_password(password_stdin, confirm=True),
        role=auth_pb2.ROLE_PUBLISHER if publisher else auth_pb2.ROLE_CONSUMER,
    )  # fmt: skip
    answer = session.client.auth.SignUp(request)
    session.credentials.keep(answer.profile, answer.session)
    _welcome(session, answer.profile)


def login(
    session: Session,
    email: Annotated[str, typer.Argument(help="Asked for when it is left out.")] = "",
    demo: Annotated[str, typer.Option(metavar="NAME", help="As admin, publisher or consumer of `mercat up`.")] = "",
    password_stdin: Annotated[bool, _STDIN] = False,
) -> None:
    """Logs in; the session is kept for the next commands.

    Several logins side by side: give each its --profile.

    Examples:

      mercat login ada@example.com

      mercat login --demo consumer

      mercat login --demo admin --profile admin
    """
    if demo:
        email, password = demo_account(demo)
    else:
        email = email or typer.prompt("Email", err=True)
        password = _password(password_stdin, confirm=False)
    answer = session.client.auth.SignIn(auth_pb2.SignInRequest(email=email, password=password))
    session.credentials.keep(answer.profile, answer.session)
    _welcome(session, answer.profile)


def _welcome(session: Session, profile: auth_pb2.Profile) -> None:
    if session.json:
        output.say_json(profile)
    else:
        role = auth_pb2.Role.Name(profile.role).removeprefix("ROLE_").lower()
        output.say(f"Logged in at {session.target.address} as [bold]{profile.username}[/] ({role}).")


def logout(session: Session) -> None:
    """Ends the session.

    Example: mercat logout --profile admin
    """
    login = session.credentials.login()
    if login is not None:
        session.client.auth.SignOut(auth_pb2.SignOutRequest(refresh_token=login.refresh_token))
        session.credentials.forget()
    if session.json:
        output.say_json({"loggedOut": login is not None})
    else:
        output.say("Logged out." if login else f"You were not logged in at {session.target.address}.")


def whoami(session: Session) -> None:
    """Shows who the commands run as.

    Examples: mercat whoami · mercat whoami --json | jq -r .username
    """
    profile = session.client.auth.GetProfile(auth_pb2.GetProfileRequest()).profile
    if session.json:
        output.say_json(profile)
        return
    output.facts([
        ("username", profile.username), ("name", profile.display_name), ("email", profile.email),
        ("role", auth_pb2.Role.Name(profile.role).removeprefix("ROLE_").lower()),
        ("organisation", profile.organisation), ("its id", profile.org_id), ("user", profile.user_id),
        ("since", output.when(profile.created_at)),
        ("server", session.target.address), ("credential", "API key" if session.api_key else "login"),
    ])  # fmt: skip
