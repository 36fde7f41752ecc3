"""Rows of webhooks as their owners see them."""

from collections.abc import Sequence

from mercat.notification.v1 import webhooks_pb2 as w

from services.notification.webhooks.store import Row

STATES = {
    w.WEBHOOK_DELIVERY_STATE_PENDING: "pending", w.WEBHOOK_DELIVERY_STATE_SUCCEEDED: "succeeded",
    w.WEBHOOK_DELIVERY_STATE_FAILED: "failed",
}  # fmt: skip
_BY_NAME = {name: state for state, name in STATES.items()}


def endpoint_of(row: Row) -> w.WebhookEndpoint:
    endpoint = w.WebhookEndpoint(
        endpoint_id=row["id"], url=row["url"], description=row["description"], event_types=row["event_types"],
        enabled=row["enabled"], disabled_reason=row["disabled_reason"], etag=str(row["revision"]),
    )  # fmt: skip
    times = {
        "previous_until": endpoint.previous_secret_until, "failing_since": endpoint.failing_since,
        "paused_until": endpoint.paused_until, "created_at": endpoint.create_time, "updated_at": endpoint.update_time,
    }  # fmt: skip
    for column, field in times.items():
        if row[column] is not None:
            field.FromDatetime(row[column])
    return endpoint


def delivery_of(row: Row, attempts: Sequence[Row] = ()) -> w.WebhookDelivery:
    """`body` only where the row has it."""
    delivery = w.WebhookDelivery(
        delivery_id=row["id"], endpoint_id=row["endpoint_id"], event_id=row["event_id"], event_type=row["type"],
        state=_BY_NAME[row["state"]], attempt_count=row["attempts"], status_code=row["status_code"],
        error=row["error"], body=row.get("body") or "",
    )  # fmt: skip
    delivery.create_time.FromDatetime(row["created_at"])
    if row["ended_at"] is not None:
        delivery.end_time.FromDatetime(row["ended_at"])
    else:
        delivery.next_attempt_time.FromDatetime(row["due_at"])
    for attempt in attempts:
        made = delivery.attempts.add(
            number=attempt["number"], duration_ms=attempt["duration_ms"], status_code=attempt["status_code"],
            error=attempt["error"], response=attempt["response"],
        )  # fmt: skip
        made.time.FromDatetime(attempt["at"])
    return delivery
