"""`mercat secrets`: replacing the keys that secrets lie under, and erasing an owner's."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Annotated, TypeVar

import typer

from services.auth.sealing.keys import InstallationKeys
from services.auth.settings import AuthSettings
from services.cli import output
from services.cli.operate import HomeOption, JsonOption, postgres_of
from services.common.db import Database
from services.common.settings import load
from services.embedded.home import Home
from services.embedded.settings import UpSettings

T = TypeVar("T")
SCHEMAS = ("auth", "notification")  # that have keys of owners


def register(app: typer.Typer) -> None:
    group = typer.Typer(help="The keys that secrets lie under in the database.", no_args_is_help=True)
    group.command()(status)
    group.command()(rotate)
    group.command()(retire)
    group.command()(shred)
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
    """Removes keys of the home that nothing lies under any more.

    Example: mercat secrets retire
    """
    gone = _with_keys(home, lambda keys: keys.retire())
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
