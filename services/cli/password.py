"""`mercat password`: sets a password, by a code from the mail or by the one before."""

from typing import Annotated

import typer
from mercat.auth.v1 import signin_pb2

from services.cli import output
from services.cli.account import STDIN, asked_password
from services.cli.command import Session, command


def register(app: typer.Typer) -> None:
    password = typer.Typer(help="Your password.", no_args_is_help=True, rich_markup_mode="rich")
    for function in (forgot, reset, change):
        password.command()(command(function))
    app.add_typer(password, name="password")


def forgot(session: Session, email: Annotated[str, typer.Argument(help="Of your account.")]) -> None:
    """Sends a code that sets a new password, within 30 minutes.

    Example: mercat password forgot ada@example.com
    """
    session.client.passwords.RequestPasswordReset(signin_pb2.RequestPasswordResetRequest(email=email))
    if session.json:
        output.say_json({})
        return
    output.say(f"If there is an account of {email}, a code is on its way there.")
    output.say("Go on with `mercat password reset CODE`.")


def reset(
    session: Session,
    code: Annotated[str, typer.Argument(help="From the mail.")],
    password_stdin: Annotated[bool, STDIN] = False,
) -> None:
    """Sets a new password and ends every session.

    Example: mercat password reset 7k3q-9x2m-b4tv-h8wd
    """
    password = asked_password(password_stdin, confirm=True, prompt="New password")
    session.client.passwords.ResetPassword(signin_pb2.ResetPasswordRequest(code=code, password=password))
    if session.json:
        output.say_json({})
    else:
        output.say("The password is set, and every session has ended. Log in with `mercat login`.")


def change(session: Session, password_stdin: Annotated[bool, STDIN] = False) -> None:
    """Changes your password and ends your other sessions. From standard input: the current one, then the new one.

    Example: mercat password change
    """
    current = asked_password(password_stdin, confirm=False, prompt="Current password")
    new = asked_password(password_stdin, confirm=True, prompt="New password")
    session.client.passwords.ChangePassword(signin_pb2.ChangePasswordRequest(current_password=current, password=new))
    if session.json:
        output.say_json({})
    else:
        output.say("The password is changed, and your other sessions have ended.")
