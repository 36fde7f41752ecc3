"""`mercat sessions`: where you are logged in."""

from typing import Annotated

import typer
from mercat.auth.v1 import mfa_pb2, sessions_pb2

from services.cli import output
from services.cli.account import STDIN, asked_password
from services.cli.command import Session, command
from services.cli.paging import Limit, gather
from services.cli.session import Refusal


def register(app: typer.Typer) -> None:
    sessions = typer.Typer(help="Where you are logged in.", no_args_is_help=True, rich_markup_mode="rich")
    sessions.command("list")(command(list_sessions))
    sessions.command("revoke")(command(revoke))
    sessions.command("confirm")(command(confirm))
    app.add_typer(sessions, name="sessions")


def list_sessions(session: Session, limit: Limit = 50) -> None:
    """Lists where you are logged in, newest first.

    Example: mercat sessions list
    """
    request = sessions_pb2.ListSessionsRequest()
    answer = gather(session.client.sessions.ListSessions, request, "sessions", limit)
    if session.json:
        output.say_json(answer)
        return
    output.table(
        ["session", "device", "tool", "address", "since", "last used", "second factor", ""],
        [
            (
                one.session_id, one.user_agent, one.client_name or one.client_id, one.ip_address,
                output.when(one.created_at), output.when(one.last_used_at), "yes" if one.second_factor else "no",
                "this one" if one.current else "",
            )
            for one in answer.sessions
        ],
        empty="You have no sessions.",
    )  # fmt: skip


def revoke(
    session: Session,
    name: Annotated[str, typer.Argument(metavar="SESSION", help="Its id, ses_….")] = "",
    others: Annotated[bool, typer.Option("--others", help="All but this one.")] = False,
) -> None:
    """Ends a session everywhere within five seconds.

    Examples:

      mercat sessions revoke ses_06b3c…

      mercat sessions revoke --others
    """
    if bool(name) == others:
        raise typer.BadParameter("name a session, or give --others")
    if others:
        answer = session.client.sessions.RevokeOtherSessions(sessions_pb2.RevokeOtherSessionsRequest())
        if session.json:
            output.say_json(answer)
        else:
            output.say(f"Ended {answer.revoked_count} other sessions.")
        return
    session.client.sessions.RevokeSession(sessions_pb2.RevokeSessionRequest(session_id=name))
    if session.json:
        output.say_json({"sessionId": name})
    else:
        output.say(f"{name} has ended.")


def confirm(
    session: Session,
    code: Annotated[str, typer.Option(help="Of your second factor, or a recovery code.")] = "",
    password_stdin: Annotated[bool, STDIN] = False,
) -> None:
    """Proves again who you are, for what needs a recent login; good for 15 minutes.

    Examples:

      mercat sessions confirm

      mercat sessions confirm --code 123456
    """
    if session.api_key:
        raise Refusal("An API key is no session.", "log in with `mercat login`")
    request = sessions_pb2.ReauthenticateRequest(code=code)
    if not code:
        enabled = session.client.second_factor.GetSecondFactor(mfa_pb2.GetSecondFactorRequest()).second_factor.enabled
        if enabled:
            request.code = session.ask("code")
        else:
            request.password = asked_password(password_stdin, confirm=False)
    answer = session.client.sessions.Reauthenticate(request)
    session.credentials.keep_access(answer.session)
    if session.json:
        output.say_json({"confirmed": True})
    else:
        output.say("Confirmed, for 15 minutes.")
