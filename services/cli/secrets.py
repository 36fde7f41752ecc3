"""`mercat secrets`: replacing keys, of what is encrypted and of what is signed, and erasing an owner's."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from enum import StrEnum
from pathlib import Path
from typing import Annotated, TypeVar

import typer

from services.auth.sealing.keys import InstallationKeys
from services.auth.settings import AuthSettings
from services.auth.tokens import LIFETIME
from services.billing.settings import BillingSettings
from services.cli import output
from services.cli.operate import HomeOption, JsonOption, postgres_of
from services.common.db import Database
from services.common.settings import SettingsError, load
from services.common.signing import KeyFile
from services.embedded.home import Home
from services.embedded.settings import UpSettings

T = TypeVar("T")
SCHEMAS = ("auth", "notification")  # that have keys of owners
_SKEW = 60.0  # seconds, until every process signs with a new key


def register(app: typer.Typer) -> None:
    group = typer.Typer(
        help="The keys that secrets lie under in the database, and those that sign.", no_args_is_help=True
    )
    group.command()(status)
    group.command()(rotate)
    group.command()(retire)
    group.command()(shred)
    group.command("rotate-signing")(rotate_signing)
    app.add_typer(group, name="secrets")


def _with_keys(home: Path | None, work: Callable[[InstallationKeys], Awaitable[T]]) -> T:
    async def run() -> T:
        settings = load(UpSettings, home=home)
        async with postgres_of(settings, Home(settings.home)) as url:
            auth, *others = [await Database.connect(url, schema, max_size=2) for schema in SCHEMAS]
            try:
                theirs = [database for database in others if await _has_keys(database)]
                return await work(InstallationKeys(auth, load(AuthSettings, home=home), theirs))
            finally:
                for database in (auth, *others):
                    await database.close()

    return asyncio.run(run())


async def _has_keys(database: Database) -> bool:
    """Not of a service that is newer than the last start."""
    async with database.connection() as connection:
        return bool(await connection.fetchval("SELECT to_regclass('data_keys') IS NOT NULL"))


def status(home: HomeOption = None, as_json: JsonOption = False) -> None:
    """Shows the installation's keys, by name, and how much lies under each.

    Example: mercat secrets status
    """

    async def look(keys: InstallationKeys) -> tuple[str, dict[str, tuple[int, int]]]:
        return await keys.newest(), await keys.uses()

    newest, uses = _with_keys(home, look)
    if as_json:
        document = {name: {"dataKeys": keys, "rows": rows} for name, (keys, rows) in uses.items()}
        output.say_json({"newest": newest, "keys": document})
        return
    for name, (keys, rows) in uses.items():
        output.say(f"{name}{' (newest)' if name == newest else ''}: {keys} data keys, {rows} rows")


def rotate(home: HomeOption = None, as_json: JsonOption = False) -> None:
    """Makes a new key and puts all data keys under it, while Mercat goes on.

    Keys in MERCAT_SEALING_KEYS are yours to make: put the new one first, restart, and run this. The ones before stay
    until `mercat secrets retire`.

    Example: mercat secrets rotate
    """

    async def work(keys: InstallationKeys) -> tuple[int, str]:
        return await keys.rotate(), await keys.newest()

    done, newest = _with_keys(home, work)
    if as_json:
        output.say_json({"rewrapped": done, "newest": newest})
    else:
        output.say(f"{done} data keys are under {newest} now.")


def retire(home: HomeOption = None, as_json: JsonOption = False) -> None:
    """Removes keys of the home that nothing lies under any more, and those of access tokens that have all ended.

    Example: mercat secrets retire
    """
    gone = _with_keys(home, lambda keys: keys.retire()) + _retire_token_keys(load(AuthSettings, home=home))
    if as_json:
        output.say_json({"retired": gone})
    else:
        output.say(f"Removed: {', '.join(gone)}." if gone else "None can be removed.")


def shred(
    owner: Annotated[str, typer.Argument(help="Id of a person (usr_…) or an organisation (org_…).")],
    home: HomeOption = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Deletes the keys of a person or an organisation: their secrets are unreadable from then on.

    A backup of before still has them until `mercat secrets rotate` and `retire` have also replaced the key they are
    under.

    Example: mercat secrets shred usr_06b3c… --yes
    """
    if not yes:
        typer.confirm(f"Make all secrets of {owner} unreadable for ever?", abort=True)
    done = _with_keys(home, lambda keys: keys.shred(owner))
    output.say(f"{done} keys of {owner} are gone.")


class Signed(StrEnum):
    """What the keys of a file sign."""

    TOKENS = "tokens"
    RECEIPTS = "receipts"
    AUDIT = "audit"


def rotate_signing(
    what: Annotated[list[Signed] | None, typer.Argument(help="Which keys; none: all of them.")] = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Makes new keys that sign access tokens, receipts and the audit log, while Mercat goes on.

    The key before goes on to check what it signed. Of tokens `mercat secrets retire` takes it away when the last has
    ended, a quarter of an hour later; of receipts and the audit log it stays among the published ones for ever.

    Example: mercat secrets rotate-signing tokens
    """
    auth, billing = load(AuthSettings, home=home), load(BillingSettings, home=home)
    files = {
        Signed.TOKENS: _token_keys(auth),
        Signed.RECEIPTS: billing.receipt_key_file or auth.home / "secrets" / "receipts.pem",
        Signed.AUDIT: auth.audit_key_file or auth.home / "secrets" / "audit.pem",
    }
    made = {}
    for name in what or list(Signed):
        path = files[name]
        if not path.exists():
            raise SettingsError(f"There is no key at {path}: start Mercat first.")
        try:
            made[name.value] = KeyFile(path).rotate().kid
        except OSError as error:
            raise SettingsError(f"{path} cannot be written ({error.strerror}).") from error
    if as_json:
        output.say_json(made)
    else:
        for of, kid in made.items():
            output.say(f"{of}: signed by {kid} from now on.")


def _token_keys(auth: AuthSettings) -> Path:
    return auth.jwt_key_file or auth.home / "secrets" / "jwt.pem"


def _retire_token_keys(auth: AuthSettings) -> list[str]:
    """Takes away keys of tokens that have all ended, of the home's own file; their names."""
    path = _token_keys(auth)
    if auth.jwt_key_file or not path.exists():
        return []
    if time.time() - path.stat().st_mtime < LIFETIME.total_seconds() + _SKEW:
        return []
    return [key.kid for key in KeyFile(path).retire()]
