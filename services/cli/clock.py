"""`mercat clock`: moves the time of a platform that was started for it, to see months pass."""

from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Annotated

import typer

from services.cli import output
from services.cli.operate import HomeOption, JsonOption
from services.cli.session import Refusal
from services.cli.times import parse_span, parse_time
from services.common import clock
from services.common.settings import load
from services.embedded.settings import UpSettings


def register(app: typer.Typer) -> None:
    group = typer.Typer(
        help="The time of a platform with a test clock.", no_args_is_help=True, rich_markup_mode="rich",
        callback=lambda: None,
    )  # fmt: skip
    group.command()(show)
    group.command()(advance)
    group.command("set")(set_time)
    app.add_typer(group, name="clock")


def show(home: HomeOption = None, as_json: JsonOption = False) -> int:
    """Shows what time it is for the platform.

    Example: mercat clock show
    """
    return _move(home, as_json, lambda now: timedelta())


def advance(
    by: Annotated[str, typer.Argument(metavar="SPAN", help="How far: 90s, 15m, 12h, 31d.")],
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> int:
    """Moves the time ahead, at once and for every process. It never goes back.

    Example: mercat clock advance 31d
    """
    seconds = parse_span(by)
    return _move(home, as_json, lambda now: timedelta(seconds=seconds))


def set_time(
    time: Annotated[str, typer.Argument(help="A date or a time that is still to come: 2027-03-01, 2027-03-01T12:00.")],
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> int:
    """Moves the time ahead to an instant, UTC.

    Example: mercat clock set 2027-03-01
    """
    return _move(home, as_json, lambda now: parse_time(time, now) - now)


def _move(home: Path | None, as_json: bool, by: Callable[[datetime], timedelta]) -> int:
    place = load(UpSettings, home=home).home
    try:
        now = clock.move(by(clock.move(timedelta(), place)), place)
    except OSError:
        refusal = Refusal(
            f"{place} has no test clock: its time is the machine's.",
            "start a new home with MERCAT_TEST_CLOCK=true, or name one with --home",
        )
        return output.fail(refusal, as_json=as_json)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
    if as_json:
        output.say_json({"now": now.isoformat()})
    else:
        output.say(f"It is {now:%Y-%m-%d %H:%M:%S} UTC.")
    return 0
