"""`mercat device`, and logging in as one: a code here, and somebody who lets it in elsewhere (RFC 8628)."""

import sys
import time
from typing import Annotated

import segno
import typer
from mercat.auth.v1 import auth_pb2, oauth_pb2

from services.cli import output
from services.cli.command import Session, command
from services.cli.session import Refusal
from services.common.errors import MercatError

CLIENT = "mercat-cli"
GRANT = "urn:ietf:params:oauth:grant-type:device_code"
_SLOWER = 5  # seconds (RFC 8628, 3.5)
_Code = Annotated[str, typer.Argument(metavar="CODE", help="What the device shows, such as WDJB-MJHT.")]


def register(app: typer.Typer) -> None:
    device = typer.Typer(
        help="Devices that wait for you to let them in.", no_args_is_help=True, rich_markup_mode="rich"
    )
    for function in (show, approve, deny):
        device.command()(command(function))
    app.add_typer(device, name="device")


def show(session: Session, code: _Code) -> None:
    """Shows who asks, and for what.

    Example: mercat device show WDJB-MJHT
    """
    found = _find(session, code)
    if session.json:
        output.say_json(found)
    else:
        _say(found)


def approve(session: Session, code: _Code) -> None:
    """Lets a device in: it is logged in as you from then on.

    Example: mercat device approve WDJB-MJHT
    """
    found = _find(session, code)
    session.client.devices.ApproveDevice(oauth_pb2.ApproveDeviceRequest(user_code=code))
    if session.json:
        output.say_json({"approved": True})
    else:
        _say(found)
        output.say("It is in. If that was not you: `mercat sessions list`, `mercat sessions revoke SESSION`.")


def deny(session: Session, code: _Code) -> None:
    """Turns a device away.

    Example: mercat device deny WDJB-MJHT
    """
    session.client.devices.DenyDevice(oauth_pb2.DenyDeviceRequest(user_code=code))
    if session.json:
        output.say_json({"approved": False})
    else:
        output.say("It is turned away.")


def _find(session: Session, code: str) -> oauth_pb2.Device:
    return session.client.devices.GetDevice(oauth_pb2.GetDeviceRequest(user_code=code)).device


def _say(device: oauth_pb2.Device) -> None:
    output.facts([
        ("who asks", device.client_name), ("of", device.organisation), ("from", device.ip_address),
        ("since", output.when(device.created_at)), ("it may", ", ".join(device.scopes) or "all that you may"),
    ])  # fmt: skip


def log_in(session: Session) -> auth_pb2.Profile:
    """Shows a code, waits until somebody lets it in, and keeps the login. Raises Refusal, or MercatError when it is
    turned away."""
    stub = session.client.oauth
    asked = stub.AuthorizeDevice(oauth_pb2.AuthorizeDeviceRequest(client_id=CLIENT))
    told = output.console(error=True)
    if told.is_terminal:
        told.print(f"Open this page on any device, or scan it:\n\n  {asked.verification_uri_complete}\n")
        segno.make(asked.verification_uri_complete, error="l").terminal(sys.stderr, compact=True)
    told.print(f"Open {asked.verification_uri} and type [bold]{asked.user_code}[/],")
    told.print(f"or say `mercat device approve {asked.user_code}` where you are logged in.")
    answer = _wait(session, asked)
    login = auth_pb2.Session(access_token=answer.access_token, refresh_token=answer.refresh_token)
    now = time.time()
    login.access_expires_at.FromSeconds(int(now) + answer.expires_in)
    login.refresh_expires_at.FromSeconds(int(now) + answer.refresh_expires_in)
    session.credentials.keep(auth_pb2.Profile(), login)
    profile = session.client.auth.GetProfile(auth_pb2.GetProfileRequest()).profile
    session.credentials.keep(profile, login)
    return profile


def _wait(session: Session, asked: oauth_pb2.AuthorizeDeviceResponse) -> oauth_pb2.IssueTokenResponse:
    request = oauth_pb2.IssueTokenRequest(grant_type=GRANT, client_id=CLIENT, device_code=asked.device_code)
    interval, until = asked.interval, time.monotonic() + asked.expires_in
    while time.monotonic() < until:
        time.sleep(interval)
        try:
            return session.client.oauth.IssueToken(request)
        except MercatError as error:
            if error.reason == "OAUTH_SLOW_DOWN":
                interval += _SLOWER
            elif error.reason != "OAUTH_AUTHORIZATION_PENDING":
                raise
    raise Refusal("Nobody let it in in time.", "begin anew with `mercat login`")
