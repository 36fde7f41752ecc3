"""`mercat signup`, `verify`, `login`, `logout`, `whoami`."""

import sys
from typing import Annotated

import typer
from mercat.auth.v1 import auth_pb2, signin_pb2

from services.cli import devices, elsewhere, output
from services.cli.command import Session, command, demo_account
from services.cli.session import Refusal, connection, mail_folder
from services.common.errors import Unauthenticated

STDIN = typer.Option("--password-stdin", help="Read the password from standard input instead of asking.")


def register(app: typer.Typer) -> None:
    for function in (signup, verify, login, logout, whoami):
        app.command()(command(function))


def asked_password(from_stdin: bool, *, confirm: bool, prompt: str = "Password") -> str:
    """A password that is typed, or a line of standard input."""
    if from_stdin:
        return sys.stdin.readline().rstrip("\r\n")
    if not output.is_terminal():
        raise Refusal("There is no terminal to ask for a password.", "give it with --password-stdin")
    asked: str = typer.prompt(prompt, hide_input=True, confirmation_prompt=confirm, err=True)
    return asked


def signup(
    session: Session,
    email: Annotated[str, typer.Argument(help="Where mail reaches you.")],
    username: Annotated[str, typer.Argument(help="The first half of your models' names.")],
    publisher: Annotated[bool, typer.Option("--publisher", help="May push and sell models.")] = False,
    display_name: Annotated[str, typer.Option("--name", help="What people call you.")] = "",
    terms: Annotated[str, typer.Option(metavar="VERSION", help="Of the terms that you agree to.")] = "",
    privacy: Annotated[str, typer.Option(metavar="VERSION", help="Of the privacy notice that you agree to.")] = "",
    marketing: Annotated[bool, typer.Option("--marketing", help="Mail may advertise.")] = False,
    password_stdin: Annotated[bool, STDIN] = False,
) -> None:
    """Makes an account and logs in.

    Examples:

      mercat signup ada@example.com ada

      pass show mercat | mercat signup ada@example.com ada --publisher --password-stdin
    """
    request = auth_pb2.SignUpRequest(
        email=email, username=username, display_name=display_name,
        password=asked_password(password_stdin, confirm=True),
        role=auth_pb2.ROLE_PUBLISHER if publisher else auth_pb2.ROLE_CONSUMER, terms_version=terms,
        privacy_version=privacy, marketing_mail=marketing,
    )  # fmt: skip
    answer = session.client.auth.SignUp(request)
    session.credentials.keep(answer.profile, answer.session)
    _welcome(session, answer.profile)
    if not (session.json or answer.profile.is_verified):
        output.say(f"A code went to {email}; confirm the address with `mercat verify CODE`.")
        if _is_here(session) and mail_folder().is_dir():
            output.say("Where no SMTP server is set, `mercat mail` shows it.")


def _is_here(session: Session) -> bool:
    """Whether the server is the one of the home here."""
    return str(connection().get("grpc", "")) == session.target.address


def verify(
    session: Session,
    code: Annotated[str, typer.Argument(help="From the mail.")] = "",
    resend: Annotated[bool, typer.Option("--resend", help="Send the code once more.")] = False,
) -> None:
    """Confirms your email address by the code that was sent there.

    Examples:

      mercat verify 7k3q-9x2m-b4tv-h8wd

      mercat verify --resend
    """
    if bool(code) == resend:
        raise typer.BadParameter("give the code, or --resend")
    if resend:
        session.client.passwords.SendVerification(signin_pb2.SendVerificationRequest())
    else:
        session.client.passwords.VerifyEmail(signin_pb2.VerifyEmailRequest(code=code))
    if session.json:
        output.say_json({"verified": not resend})
    else:
        output.say("A code is on its way." if resend else "Your email address is confirmed.")


def login(
    session: Session,
    email: Annotated[str, typer.Argument(help="Of an account with a password.")] = "",
    password: Annotated[bool, typer.Option("--password", help="By email and password.")] = False,
    elsewhere_: Annotated[
        str, typer.Option("--with", metavar="PROVIDER", help="With an account elsewhere, such as google or github.")
    ] = "",
    sso: Annotated[
        str, typer.Option(metavar="DOMAIN", help="With your organisation's own sign-in, such as acme.com.")
    ] = "",
    username: Annotated[str, typer.Option(help="With --with or --sso: of an account that is made by this.")] = "",
    demo: Annotated[str, typer.Option(metavar="NAME", help="As admin, publisher or consumer of `mercat up`.")] = "",
    code: Annotated[
        str, typer.Option(help="Of your second factor, or a recovery code; asked for when it is needed.")
    ] = "",
    password_stdin: Annotated[bool, STDIN] = False,
) -> None:
    """Logs in; the session is kept for the next commands.

    Shows a code and the page where you let it in, in a browser anywhere; or, with an email address, asks for the
    password here; or signs in elsewhere, in the browser of this machine. Several logins side by side: give each its
    --profile.

    Examples:

      mercat login

      mercat login ada@example.com

      mercat login --with google

      mercat login --sso acme.com

      mercat login --demo consumer

      mercat login --demo admin --profile admin
    """
    if elsewhere_ or sso:
        _welcome(session, elsewhere.log_in(session, elsewhere_, username, code, sso))
        return
    if not (demo or email or password or password_stdin):
        _welcome(session, devices.log_in(session))
        return
    if demo:
        email, said = demo_account(demo)
    else:
        email = email or typer.prompt("Email", err=True)
        said = asked_password(password_stdin, confirm=False)
    request = auth_pb2.SignInRequest(email=email, password=said, code=code)
    try:
        answer = session.client.auth.SignIn(request)
    except Unauthenticated as error:
        if error.reason != "SECOND_FACTOR_REQUIRED" or not output.is_terminal():
            raise
        request.code = session.ask("code")
        answer = session.client.auth.SignIn(request)
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
        ("verified", "yes" if profile.is_verified else "no"),
        ("role", auth_pb2.Role.Name(profile.role).removeprefix("ROLE_").lower()),
        ("organisation", profile.organisation), ("its id", profile.org_id), ("user", profile.user_id),
        ("since", output.when(profile.created_at)),
        ("server", session.target.address), ("credential", "API key" if session.api_key else "login"),
    ])  # fmt: skip
