"""`mercat webhooks`: where events are posted to, and what came of it."""

from datetime import UTC, datetime
from typing import Annotated

import typer
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp
from mercat.notification.v1 import webhooks_pb2 as w

from services.cli import listening, output
from services.cli.command import Session, command
from services.cli.paging import Limit, gather
from services.cli.times import parse_span, parse_time

Id = Annotated[str, typer.Argument(metavar="ENDPOINT", help="Its id, whe_….")]
DeliveryId = Annotated[str, typer.Argument(metavar="DELIVERY", help="Its id, whd_….")]
Types = Annotated[
    list[str] | None, typer.Option("--event", metavar="TYPE", help="A type of events; repeatable. Without: all.")
]
_STATES = {name.removeprefix("WEBHOOK_DELIVERY_STATE_").lower(): n for name, n in w.WebhookDeliveryState.items() if n}
_SHOWN = {n: name for name, n in _STATES.items()}


def register(app: typer.Typer) -> None:
    group = typer.Typer(help="Events, posted to where you want them.", no_args_is_help=True, rich_markup_mode="rich")
    group.command()(command(create))
    group.command("list")(command(list_endpoints))
    group.command()(command(get))
    group.command()(command(update))
    group.command("rotate-secret")(command(rotate_secret))
    group.command()(command(delete))
    group.command()(command(deliveries))
    group.command()(command(delivery))
    group.command()(command(redeliver))
    group.command("test")(command(send_test))
    group.command()(command(events))
    group.command()(command(listening.listen))
    app.add_typer(group, name="webhooks")


def create(
    session: Session,
    url: Annotated[str, typer.Argument(help="https://… that events are posted to.")],
    event: Types = None,
    description: Annotated[str, typer.Option(help="What it is for.")] = "",
) -> None:
    """Makes an endpoint and shows the secret that its deliveries are signed with, once.

    Examples:

      mercat webhooks create https://example.com/mercat --event inference.job.completed

      mercat webhooks create https://example.com/all --description "our warehouse"
    """
    request = w.CreateWebhookEndpointRequest(url=url, event_types=event or [], description=description)
    made = session.client.webhooks.CreateWebhookEndpoint(request)
    if session.json:
        output.say_json(made)
        return
    output.say(f"Made {made.endpoint.endpoint_id}. Its secret, shown this once:")
    typer.echo(made.secret)


def list_endpoints(session: Session, limit: Limit = 50) -> None:
    """Lists your endpoints, newest first.

    Example: mercat webhooks list
    """
    request = w.ListWebhookEndpointsRequest()
    answer = gather(session.client.webhooks.ListWebhookEndpoints, request, "endpoints", limit)
    if session.json:
        output.say_json(answer)
        return
    output.table(
        ["endpoint", "URL", "events", "state", "description"],
        [
            (one.endpoint_id, one.url, ", ".join(one.event_types) or "all", _state(one), one.description)
            for one in answer.endpoints
        ],
        empty="You have no endpoints; make one with `mercat webhooks create URL`.",
    )


def _state(endpoint: w.WebhookEndpoint) -> str:
    if not endpoint.enabled:
        return f"disabled ({endpoint.disabled_reason.replace('_', ' ')})"
    return "failing" if endpoint.HasField("failing_since") else "enabled"


def get(session: Session, endpoint: Id) -> None:
    """Shows an endpoint.

    Example: mercat webhooks get whe_06b3c…
    """
    request = w.GetWebhookEndpointRequest(endpoint_id=endpoint)
    _show(session, session.client.webhooks.GetWebhookEndpoint(request).endpoint)


def _show(session: Session, one: w.WebhookEndpoint) -> None:
    if session.json:
        output.say_json(one)
        return
    output.facts([
        ("endpoint", one.endpoint_id), ("URL", one.url), ("events", ", ".join(one.event_types) or "all"),
        ("description", one.description), ("state", _state(one)),
        ("failing since (UTC)", output.when(one.failing_since)),
        ("left alone until (UTC)", output.when(one.paused_until)),
        ("old secret signs until (UTC)", output.when(one.previous_secret_until)),
        ("made (UTC)", output.when(one.create_time)), ("etag", one.etag),
    ])  # fmt: skip


def update(
    session: Session,
    endpoint: Id,
    url: Annotated[str, typer.Option(help="Another URL.")] = "",
    event: Types = None,
    all_events: Annotated[bool, typer.Option("--all-events", help="It hears of all types.")] = False,
    description: Annotated[str | None, typer.Option(help="What it is for.")] = None,
    enable: Annotated[bool | None, typer.Option("--enable/--disable", help="Whether events are sent.")] = None,
    etag: Annotated[str, typer.Option(help="Change it only if it still has this etag.")] = "",
) -> None:
    """Changes an endpoint: what is given, and nothing else.

    Examples:

      mercat webhooks update whe_06b3c… --event payment.succeeded --event payment.failed

      mercat webhooks update whe_06b3c… --enable
    """
    request = w.UpdateWebhookEndpointRequest(
        endpoint_id=endpoint, event_types=event or [], all_event_types=all_events, etag=etag, url=url or None,
        description=description, enabled=enable,
    )  # fmt: skip
    _show(session, session.client.webhooks.UpdateWebhookEndpoint(request).endpoint)


def rotate_secret(
    session: Session,
    endpoint: Id,
    overlap: Annotated[str, typer.Option(metavar="SPAN", help="How long the old one signs too: 12h, 7d, 0s.")] = "24h",
) -> None:
    """Gives an endpoint another secret and shows it, once.

    Example: mercat webhooks rotate-secret whe_06b3c… --overlap 7d
    """
    span = Duration(seconds=parse_span(overlap))
    request = w.RotateWebhookSecretRequest(endpoint_id=endpoint, overlap=span)
    made = session.client.webhooks.RotateWebhookSecret(request)
    if session.json:
        output.say_json(made)
        return
    until = output.when(made.endpoint.previous_secret_until)
    output.say(f"The one before signs too until {until} UTC. The new one:" if span.seconds else "The new one:")
    typer.echo(made.secret)


def delete(session: Session, endpoint: Id) -> None:
    """Deletes an endpoint and the log of its deliveries.

    Example: mercat webhooks delete whe_06b3c…
    """
    request = w.DeleteWebhookEndpointRequest(endpoint_id=endpoint)
    answer = session.client.webhooks.DeleteWebhookEndpoint(request)
    if session.json:
        output.say_json(answer)
    else:
        output.say(f"{endpoint} is deleted.")


def deliveries(
    session: Session,
    endpoint: Id,
    state: Annotated[str, typer.Option(help="pending, succeeded or failed.")] = "",
    limit: Limit = 50,
) -> None:
    """Lists what was sent to an endpoint, newest first.

    Example: mercat webhooks deliveries whe_06b3c… --state failed
    """
    if state and state not in _STATES:
        raise typer.BadParameter(f"there is no state {state!r}; there are {', '.join(_STATES)}")
    request = w.ListWebhookDeliveriesRequest(endpoint_id=endpoint, state=_STATES.get(state, 0))  # type: ignore[arg-type]
    answer = gather(session.client.webhooks.ListWebhookDeliveries, request, "deliveries", limit)
    if session.json:
        output.say_json(answer)
        return
    output.table(
        ["made (UTC)", "event", "state", "attempts", "answer", "next (UTC)", "delivery"],
        [
            (
                output.when(one.create_time), one.event_type, _SHOWN[one.state], str(one.attempt_count),
                one.error or str(one.status_code or ""), output.when(one.next_attempt_time), one.delivery_id,
            )
            for one in answer.deliveries
        ],
        empty="Nothing was sent there; try it with `mercat webhooks test ENDPOINT`.",
        right=["attempts"],
    )  # fmt: skip


def delivery(session: Session, delivery: DeliveryId) -> None:
    """Shows what was sent, and each attempt.

    Example: mercat webhooks delivery whd_06b3c…
    """
    one = session.client.webhooks.GetWebhookDelivery(w.GetWebhookDeliveryRequest(delivery_id=delivery)).delivery
    if session.json:
        output.say_json(one)
        return
    output.facts([
        ("delivery", one.delivery_id), ("event", f"{one.event_type} {one.event_id}"), ("state", _SHOWN[one.state]),
        ("next attempt (UTC)", output.when(one.next_attempt_time)), ("body", one.body),
    ])  # fmt: skip
    output.table(
        ["time (UTC)", "took", "answer", "error", "said"],
        [
            (output.when(a.time), f"{a.duration_ms} ms", str(a.status_code or ""), a.error, a.response)
            for a in one.attempts
        ],
        empty="It was not sent yet.",
        right=["took"],
    )


def redeliver(
    session: Session,
    what: Annotated[str, typer.Argument(metavar="DELIVERY|ENDPOINT", help="whd_…; or whe_… for all that failed.")],
    since: Annotated[str, typer.Option(metavar="TIME", help="Of an endpoint: those since then, as 2027-03-01.")] = "",
) -> None:
    """Sends again what was sent, under the same id: one delivery, or all of an endpoint that failed for good.

    Examples:

      mercat webhooks redeliver whd_06b3c…

      mercat webhooks redeliver whe_06b3c… --since 2027-03-01
    """
    if what.startswith("whe_"):
        request = w.RedeliverFailedRequest(endpoint_id=what)
        if since:
            request.since.CopyFrom(_timestamp(since))
        answer = session.client.webhooks.RedeliverFailed(request)
        if session.json:
            output.say_json(answer)
        else:
            output.say(f"{answer.deliveries} deliveries are sent again.")
        return
    one = session.client.webhooks.RedeliverWebhook(w.RedeliverWebhookRequest(delivery_id=what)).delivery
    if session.json:
        output.say_json(one)
    else:
        output.say(f"{one.delivery_id} ({one.event_type}) is sent again.")


def _timestamp(text: str) -> Timestamp:
    made = Timestamp()
    made.FromDatetime(parse_time(text, datetime.now(UTC)))
    return made


def send_test(
    session: Session,
    endpoint: Id,
    event: Annotated[str, typer.Option(metavar="TYPE", help="Which; otherwise the first that it hears of.")] = "",
) -> None:
    """Sends an endpoint the example of a type, once.

    Example: mercat webhooks test whe_06b3c… --event payment.succeeded
    """
    request = w.SendTestEventRequest(endpoint_id=endpoint, event_type=event)
    one = session.client.webhooks.SendTestEvent(request).delivery
    if session.json:
        output.say_json(one)
    else:
        output.say(f"{one.event_type} is on its way; see `mercat webhooks delivery {one.delivery_id}`.")


def events(session: Session) -> None:
    """Lists the types of events; with --json also an example and the schema of each.

    Example: mercat webhooks events
    """
    request = w.ListEventTypesRequest()
    answer = gather(session.client.webhooks.ListEventTypes, request, "event_types", 1000)
    if session.json:
        output.say_json(answer)
        return
    output.table(
        ["type", "what happened", "needs the scope"],
        [(one.name, one.description, one.scope) for one in answer.event_types],
        empty="There are none.",
    )
