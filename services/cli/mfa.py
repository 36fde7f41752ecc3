"""`mercat mfa`: the second factor of logging in."""

from collections.abc import Iterable
from typing import Annotated

import segno
import typer
from mercat.auth.v1 import mfa_pb2

from services.cli import output
from services.cli.command import Session, command


def register(app: typer.Typer) -> None:
    mfa = typer.Typer(help="A second factor for logging in.", no_args_is_help=True, rich_markup_mode="rich")
    for function in (show, enroll, confirm, codes, disable):
        mfa.command()(command(function))
    app.add_typer(mfa, name="mfa")


def show(session: Session) -> None:
    """Shows whether logging in takes a second factor.

    Example: mercat mfa show
    """
    found = session.client.second_factor.GetSecondFactor(mfa_pb2.GetSecondFactorRequest()).second_factor
    if session.json:
        output.say_json(found)
    elif not found.enabled:
        output.say("There is no second factor; turn it on with `mercat mfa enroll`.")
    else:
        output.facts([
            ("authenticator app", f"since {output.when(found.enabled_at)}"),
            ("recovery codes left", str(found.recovery_codes_left)),
        ])  # fmt: skip


def enroll(session: Session) -> None:
    """Shows a QR code for an authenticator app, and turns the second factor on with the first code it shows.

    Example: mercat mfa enroll
    """
    answer = session.client.second_factor.EnrollTotp(mfa_pb2.EnrollTotpRequest())
    if session.json:
        output.say_json(answer)
        return
    segno.make(answer.uri, error="l").terminal(compact=True)
    output.facts([("or type", " ".join(answer.secret[at : at + 4] for at in range(0, len(answer.secret), 4)))])
    if not output.is_terminal():
        output.say("Then go on with `mercat mfa confirm CODE`.")
        return
    _confirm(session, session.ask("code"))


def confirm(session: Session, code: Annotated[str, typer.Argument(help="What the app shows now.")]) -> None:
    """Turns the second factor on, and shows the recovery codes.

    Example: mercat mfa confirm 123456
    """
    _confirm(session, code)


def _confirm(session: Session, code: str) -> None:
    answer = session.client.second_factor.ConfirmTotp(mfa_pb2.ConfirmTotpRequest(code=code))
    session.credentials.keep_access(answer.session)
    _say_codes(session, answer.recovery_codes, "From now on logging in takes a code of the app.")


def codes(session: Session) -> None:
    """Makes new recovery codes; those there were no longer work.

    Example: mercat mfa codes
    """
    request = mfa_pb2.RegenerateRecoveryCodesRequest()
    answer = session.client.second_factor.RegenerateRecoveryCodes(request)
    _say_codes(session, answer.recovery_codes, "The codes before these no longer work.")


def _say_codes(session: Session, made: Iterable[str], done: str) -> None:
    if session.json:
        output.say_json({"recoveryCodes": list(made)})
        return
    output.say(done)
    output.say("Recovery codes, each good once in place of one; keep them where the app is not:")
    for code in made:
        output.say(f"  {code}")


def disable(session: Session) -> None:
    """Turns the second factor off.

    Example: mercat mfa disable
    """
    session.client.second_factor.DisableTotp(mfa_pb2.DisableTotpRequest())
    if session.json:
        output.say_json({"enabled": False})
    else:
        output.say("Logging in takes no second factor any more.")
