"""Organisations as customers of the payment provider."""

import asyncio
import logging

from services.billing.payments.provider import Provider, ProviderRefused, ProviderUnavailable
from services.billing.payments.store import PaymentStore
from services.common.clock import Clock
from services.common.db import Database
from services.common.errors import MercatError

log = logging.getLogger(__name__)
_AT_ONCE, _POLL = 20, 10.0  # seconds


class Customers:
    """Makes a customer of an organisation when one is needed."""

    def __init__(self, database: Database, store: PaymentStore, provider: Provider, clock: Clock) -> None:
        self._database = database
        self._store = store
        self._provider = provider
        self._clock = clock

    async def ensure(self, org_id: str) -> str:
        """The provider's name for the organisation. Asks the provider, so outside any transaction. Raises as
        `Provider`. One that was made and not stored before a death is never used: it has no card."""
        name = self._provider.name
        async with self._database.connection() as connection:
            ref = await self._store.get_customer(connection, org_id, name)
        if ref is not None:
            return ref
        made = await self._provider.create_customer(org_id, key=org_id)
        async with self._database.transaction() as connection:
            return await self._store.add_customer(connection, org_id, name, made, self._clock.now())

    async def forget_cards(self) -> None:
        """Has the provider forget the cards that were detached, for ever."""
        while True:
            try:
                async with self._database.connection() as connection:
                    rows = await self._store.unforgotten_methods(connection, self._provider.name, _AT_ONCE)
                for row in rows:
                    try:
                        await self._provider.detach_card(row["ref"])
                    except ProviderRefused as e:
                        log.warning("%s is taken to be forgotten: %s", row["id"], e)
                    async with self._database.transaction() as connection:
                        await self._store.forget_method(connection, row["id"], self._clock.now())
            except (ProviderUnavailable, MercatError) as e:
                log.warning("detached cards wait: %s", e)
            except Exception:
                log.exception("detached cards wait")
            await asyncio.sleep(_POLL)
