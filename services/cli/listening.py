"""`mercat webhooks listen`: events as they happen, at the terminal and at a port of this machine."""

import time
from collections.abc import Iterator
from typing import Annotated

import httpx
import typer
from mercat.notification.v1 import webhooks_pb2 as w

from services.cli import output
from services.cli.client import Unreachable
from services.cli.command import Session
from services.cli.session import Refusal
from services.common.errors import Unavailable
from services.notification.webhooks import signing

_AGAIN = 2.0  # seconds before it listens again, when the platform was away
_TIMEOUT = 15.0  # seconds for the local answer, as an endpoint has


def listen(
    session: Session,
    forward: Annotated[str, typer.Option(metavar="URL", help="Post them there, such as http://localhost:4242.")] = "",
    event: Annotated[
        list[str] | None, typer.Option("--event", metavar="TYPE", help="A type of events; repeatable. Without: all.")
    ] = None,
    secret: Annotated[
        str, typer.Option(envvar="MERCAT_WEBHOOK_SECRET", help="Sign with it, whsec_…; otherwise with a new one.")
    ] = "",
) -> int | None:
    """Shows your events as they happen, until Ctrl-C, and posts them, signed, to a server on this machine.

    Nothing needs to be reachable from outside. What happens while nobody listens is not told.

    Examples:

      mercat webhooks listen --forward http://localhost:4242/webhooks

      mercat webhooks listen --event inference.job.completed --json
    """
    key = _key(secret) if secret else signing.new_secret()
    if forward and not session.json:
        typer.echo(f"What is posted to {forward} is signed with {signing.shown(key)}")
    with httpx.Client(timeout=_TIMEOUT, trust_env=False) as http:
        try:
            for one in _events(session, event or []):
                status = _post(http, forward, one, key) if forward else ""
                if session.json:
                    output.say_json({"id": one.event_id, "type": one.event_type, "body": one.body, "answer": status},
                                    line=True)  # fmt: skip
                else:
                    typer.echo(output.clean(f"{one.event_type}  {one.event_id}  {status}".rstrip()))
        except KeyboardInterrupt:
            return None
    return None


def _events(session: Session, types: list[str]) -> Iterator[w.Event]:
    """For ever; says when it begins, and when the platform was away."""
    request = w.StreamEventsRequest(event_types=types)
    begun = False
    while True:
        try:
            for message in session.client.webhooks.StreamEvents(request):
                if message.HasField("event"):
                    yield message.event
                elif not begun:
                    begun = True
                    _note(session, "Ready. Ctrl-C ends it.")
        except (Unavailable, Unreachable):
            if not begun:
                raise
            _note(session, "The platform is away; events of meanwhile are not told.")
            time.sleep(_AGAIN)
        begun = False


def _note(session: Session, text: str) -> None:
    if not session.json:
        output.say(text)


def _post(http: httpx.Client, url: str, event: w.Event, key: bytes) -> str:
    """The answer's status, or why there was none."""
    body = event.body.encode()
    headers = signing.headers(event.event_id, int(time.time()), body, [key])
    try:
        return str(http.post(url, content=body, headers={"content-type": "application/json", **headers}).status_code)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        return f"not delivered: {error}"


def _key(text: str) -> bytes:
    try:
        return signing.read(text)
    except ValueError:
        raise Refusal("That is no secret of a webhook.", "one looks like whsec_ and base64") from None
