"""`mercat login --with`, `mercat identities`: signing in with an account elsewhere, in the browser of this machine
(RFC 8252): it comes back to a port that only listens here, with a code that only this command can trade (RFC 7636)."""

import base64
import hashlib
import secrets
import time
import webbrowser
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Annotated, Any
from urllib.parse import parse_qs, urlsplit

import typer
from mercat.auth.v1 import auth_pb2
from mercat.auth.v1 import identity_pb2 as pb

from services.cli import output
from services.cli.command import Session, command
from services.cli.paging import Limit, gather
from services.cli.session import Refusal
from services.common.errors import Unauthenticated

_PATIENCE = 600.0  # seconds, for which the platform waits too
_PAGE = b"<!doctype html><title>Mercat</title><p>Go on in the terminal. You can close this page."


def register(app: typer.Typer) -> None:
    identities = typer.Typer(
        help="Accounts elsewhere that you sign in with.", no_args_is_help=True, rich_markup_mode="rich"
    )
    for name, function in (("list", list_identities), ("link", link), ("unlink", unlink)):
        identities.command(name)(command(function))
    app.add_typer(identities, name="identities")


def list_identities(session: Session, limit: Limit = 50) -> None:
    """Lists the accounts elsewhere that you sign in with.

    Example: mercat identities list
    """
    answer = gather(session.client.identities.ListIdentities, pb.ListIdentitiesRequest(), "identities", limit)
    if session.json:
        output.say_json(answer)
        return
    output.table(
        ["identity", "provider", "there", "since", "last used"],
        [
            (i.identity_id, i.provider, i.email, output.when(i.created_at), output.when(i.last_used_at))
            for i in answer.identities
        ],
        empty="There are none; link one with `mercat identities link PROVIDER`.",
    )  # fmt: skip


def link(
    session: Session,
    provider: Annotated[str, typer.Argument(help="Such as google or github.")] = "",
    sso: Annotated[str, typer.Option(metavar="DOMAIN", help="Your organisation's own instead, such as acme.com.")] = "",
) -> None:
    """Signs in elsewhere, and from then on with that account here.

    Example: mercat identities link github
    """
    if bool(provider) == bool(sso):
        raise typer.BadParameter("name a provider, or --sso DOMAIN")
    stub = session.client.identities
    visit = _Visit()
    begin = pb.BeginIdentityLinkRequest(provider=provider, domain=sso, **visit.asks)
    code = visit.go(stub.BeginIdentityLink(begin).authorization_url)
    made = stub.LinkIdentity(pb.LinkIdentityRequest(identity_code=code, code_verifier=visit.verifier)).identity
    if session.json:
        output.say_json(made)
    else:
        output.say(f"{output.clean(made.email or made.provider)} signs in to your account from now on.")


def unlink(
    session: Session, identity: Annotated[str, typer.Argument(metavar="IDENTITY", help="Its id, idn_….")]
) -> None:
    """Signs in with that account no more.

    Example: mercat identities unlink idn_06b3c…
    """
    session.client.identities.UnlinkIdentity(pb.UnlinkIdentityRequest(identity_id=identity))
    if session.json:
        output.say_json({"identityId": identity})
    else:
        output.say(f"{output.clean(identity)} is unlinked.")


def log_in(session: Session, provider: str, username: str, code: str, domain: str = "") -> auth_pb2.Profile:
    """Signs in elsewhere, with an organisation's own provider by its domain, and keeps the login, which is for that
    organisation; makes an account where there is none. Raises MercatError, or Refusal."""
    stub = session.client.identities
    visit = _Visit()
    begin = pb.BeginIdentitySignInRequest(provider=provider, domain=domain, **visit.asks)
    found = visit.go(stub.BeginIdentitySignIn(begin).authorization_url)
    request = pb.SignInWithIdentityRequest(
        identity_code=found, code_verifier=visit.verifier, username=username, code=code
    )
    try:
        answer = stub.SignInWithIdentity(request)
    except Unauthenticated as error:
        if error.reason != "SECOND_FACTOR_REQUIRED" or not output.is_terminal():
            raise
        request.code = session.ask("code")
        answer = stub.SignInWithIdentity(request)
    session.credentials.keep(answer.profile, answer.session)
    if answer.organisation:
        session.credentials.switch(answer.organisation)
    return answer.profile


class _Visit:
    """A browser's way to a provider and back to a port of this machine."""

    def __init__(self) -> None:
        self.verifier, self._state = secrets.token_urlsafe(48), secrets.token_urlsafe(24)
        self._answers: list[dict[str, str]] = []
        self._server = HTTPServer(("127.0.0.1", 0), self._handler())
        challenge = base64.urlsafe_b64encode(hashlib.sha256(self.verifier.encode()).digest()).rstrip(b"=").decode()
        self.asks: dict[str, Any] = {
            "redirect_uri": f"http://127.0.0.1:{self._server.server_port}/callback", "code_challenge": challenge,
            "state": self._state,
        }  # fmt: skip

    def go(self, url: str) -> str:
        """Opens a URL and waits; the code that comes back. Raises Refusal when none does."""
        output.console(error=True).print(f"Sign in in your browser; if it does not open by itself:\n\n  {url}\n")
        webbrowser.open(url)
        until = time.monotonic() + _PATIENCE
        with self._server as server:
            while not self._answers and (left := until - time.monotonic()) > 0:
                server.timeout = left
                server.handle_request()
        if not self._answers:
            raise Refusal("Nobody came back from the browser in time.", "begin anew")
        if "code" not in self._answers[0]:
            raise Refusal("You were not signed in there.", "begin anew, or sign in in another way")
        return self._answers[0]["code"]

    def _handler(self) -> Callable[..., BaseHTTPRequestHandler]:
        visit = self

        class Handler(BaseHTTPRequestHandler):
            timeout = 10  # seconds for which one request is waited for

            def do_GET(self) -> None:
                parts = urlsplit(self.path)
                said = {name: values[0] for name, values in parse_qs(parts.query).items()}
                ours = parts.path == "/callback" and secrets.compare_digest(
                    said.get("state", "").encode(), visit._state.encode()
                )
                if ours:
                    visit._answers.append(said)
                self.send_response(200 if ours else 404)
                self.send_header("content-type", "text/html")
                self.end_headers()
                self.wfile.write(_PAGE if ours else b"")

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
                """Nothing: the terminal is the person's."""

        return Handler
