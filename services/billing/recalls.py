"""Asks the workers for money that they hold. Nobody waits for it: a lease that its worker did not hear about ends by
itself."""

import logging

import nats

from services.common.events import Events, broadcast

log = logging.getLogger(__name__)
ALL = b"all"  # also slices that calls under way hold a part of: they come back when those have ended


async def recall(events: Events, org_id: str, payload: bytes = b"") -> None:
    """The slices of an organisation that no call holds anything of, or `ALL` of them."""
    try:
        await broadcast(events, f"mercat.recall.{org_id}", payload)
    except nats.errors.Error as e:
        log.warning("slices could not be called back: %s", e)
