"""Replaces the keys of the installation, under which all others lie, while everything goes on."""

from collections import Counter
from collections.abc import Sequence

from services.auth.settings import AuthSettings
from services.common import sealing
from services.common.clock import SystemClock
from services.common.db import Database, load_queries
from services.common.sealing import Sealer
from services.common.secrets.files import replace
from services.common.secrets.keyring import Keyring
from services.common.secrets.sources import FileSource
from services.common.secrets.vault import Transit, client
from services.common.secrets.wrapping import wrapper_of


class InstallationKeys:
    """Those of a file of the home, of the setting, or of Vault. Raises SettingsError, SecretUnavailable or Unavailable
    where they cannot be had."""

    def __init__(self, database: Database, settings: AuthSettings, others: Sequence[Database] = ()) -> None:
        """`others`: of services that have data keys too."""
        self._database = database
        self._databases = [database, *others]
        self._settings = settings
        self.file = settings.home / "secrets" / "sealing.key"
        self._sealer = Sealer.load(settings.sealing_keys, self.file)
        self._wrapper = wrapper_of(settings.sealing_transit, self._sealer)
        self._keyring = Keyring(self._wrapper, SystemClock())
        self._q = load_queries("services.auth.sealing")

    @property
    def in_file(self) -> bool:
        """Whether this is who makes them."""
        return not self._settings.sealing_keys and not self._settings.sealing_transit

    async def newest(self) -> str:
        return await self._wrapper.under()

    async def uses(self) -> dict[str, tuple[int, int]]:
        """By each key's name: data keys that it wraps, and rows that it seals itself."""
        keys: Counter[str] = Counter()
        for database in self._databases:
            async with database.connection() as connection:
                keys.update(await self._keyring.count(connection))
        async with self._database.connection() as connection:
            rows = {row["under"]: row["found"] async for row in self._q.count_sealed_directly(connection)}
        return {name: (keys.get(name, 0), rows.get(name, 0)) for name in sorted({*keys, *rows, await self.newest()})}

    async def rotate(self) -> int:
        """A new key, where they are made here or by Vault, and all data keys under the newest; how many were wrapped
        anew. May be repeated when it was interrupted."""
        if self._settings.sealing_transit:
            Transit(client(), self._settings.sealing_transit).rotate()
        elif self.in_file:
            replace(self.file, f"{sealing.generate()},{FileSource().get(str(self.file))}")
        return await self.rewrap()

    async def rewrap(self) -> int:
        """All data keys under the newest key; how many were not."""
        done = 0
        for database in self._databases:
            some = True
            while some:
                async with database.transaction() as connection:
                    some = bool(found := await self._keyring.rewrap(connection))
                done += found
        return done

    async def retire(self) -> list[str]:
        """Takes those keys out of the file that nothing lies under any more; their names."""
        if not self.in_file:
            return []
        used, newest = await self.uses(), await self.newest()
        kept = sealing.named(FileSource().get(str(self.file)))
        gone = [name for name in kept if name != newest and not any(used.get(name, (0, 0)))]
        if gone:
            replace(self.file, ",".join(key for name, key in kept.items() if name not in gone))
        return gone

    async def shred(self, owner_id: str) -> int:
        """Deletes the keys of an owner, and so makes its secrets unreadable for ever; how many keys there were."""
        done = 0
        for database in self._databases:
            async with database.transaction() as connection:
                done += await self._keyring.shred(connection, owner_id)
        return done
