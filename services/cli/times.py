"""Spans and instants as people type them."""

import re
from datetime import UTC, datetime, timedelta

import typer

_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def parse_span(text: str) -> int:
    """Seconds of `90s`, `15m`, `12h`, `30d`. Raises BadParameter for anything else."""
    match = re.fullmatch(r"(\d{1,6})([smhd])", text.strip())
    if match is None:
        raise typer.BadParameter(f"{text!r} is no span; write it as 90s, 15m, 12h or 30d")
    return int(match[1]) * _SECONDS[match[2]]


def parse_ahead(text: str, now: datetime) -> datetime:
    """An instant to come: a span from now on, or an ISO 8601 date or time (UTC where it says nothing). Raises
    BadParameter for anything else."""
    try:
        known = datetime.fromisoformat(text.strip())
    except ValueError:
        try:
            return now + timedelta(seconds=parse_span(text))
        except typer.BadParameter:
            raise typer.BadParameter(f"{text!r} is no time; write it as 2027-01-31, 2027-01-31T12:00 or 12h") from None
    return known if known.tzinfo else known.replace(tzinfo=UTC)


def parse_time(text: str, now: datetime) -> datetime:
    """An instant: a span before now, or an ISO 8601 date or time (UTC where it says nothing). Raises BadParameter for
    anything else."""
    try:
        known = datetime.fromisoformat(text.strip())
    except ValueError:
        try:
            return now - timedelta(seconds=parse_span(text))
        except typer.BadParameter:
            raise typer.BadParameter(f"{text!r} is no time; write it as 2026-01-31, 2026-01-31T12:00 or 12h") from None
    return known if known.tzinfo else known.replace(tzinfo=UTC)
