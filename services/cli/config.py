"""`mercat config`: every setting, its value, and where the value comes from."""

import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from services.common.settings import PREFIX, Row, Settings, SettingsError, describe, discover, load, unknown_variables
from services.embedded.envoy_door import DESCRIPTORS


def register(app: typer.Typer) -> None:
    app.command()(config)


def config(
    home: Annotated[Path | None, typer.Option(help="Folder of all state. [MERCAT_HOME, .mercat]")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
    envoy: Annotated[bool, typer.Option("--envoy", help="Print the front door's configuration of this home.")] = False,
) -> int:
    """Prints and checks every setting. Exit status 1 when one has a value it cannot have.

    Settings come from MERCAT_* variables, then from mercat.toml in the home, then from the defaults.

    Examples: mercat config · mercat config --json
    """
    if envoy:
        return _envoy(load(Settings, home=home).home)
    problems: list[str] = []
    rows: list[Row] = []
    base = _loaded(Settings, home, problems)
    if base is not None:
        rows += describe(base, group="all", inherited=True)
    for group, cls in discover().items():
        settings = _loaded(cls, home, problems)
        if settings is not None:
            rows += describe(settings, group="up" if group == "embedded" else group)
    classes: list[type[Settings]] = [Settings, *discover().values()]
    known = {PREFIX + name.upper() for cls in classes for name in cls.model_fields}
    warnings = [f"{name} is set, and no setting has that name" for name in unknown_variables(known)]
    if as_json:
        document = {"settings": [asdict(row) for row in rows], "problems": problems, "warnings": warnings}
        typer.echo(json.dumps(document, indent=2))
    else:
        _print(rows, problems, warnings)
    return 1 if problems else 0


def _loaded(cls: type[Settings], home: Path | None, problems: list[str]) -> Settings | None:
    try:
        return load(cls, home=home)
    except SettingsError as error:
        problems.extend(problem for problem in str(error).split("; ") if problem not in problems)
        return None


def _print(rows: list[Row], problems: list[str], warnings: list[str]) -> None:
    console = Console(highlight=False, soft_wrap=True)
    for group in dict.fromkeys(row.group for row in rows):
        table = Table(title=f"\n{group}", title_justify="left", box=None, padding=(0, 2, 0, 0))
        for heading in ("setting", "value", "source", ""):
            table.add_column(heading, overflow="fold")
        for row in (row for row in rows if row.group == group):
            unit = f" {row.unit}" if row.unit and row.value else ""
            table.add_row(row.env, row.value + unit, row.source, row.description)
        console.print(table)
    for line in _marked(problems, "red"):
        console.print(line)
    for line in _marked(warnings, "yellow"):
        console.print(line)


def _marked(texts: list[str], colour: str) -> Iterator[str]:
    for text in texts:
        yield f"[{colour}]![/] {text}"


def _envoy(home: Path) -> int:
    path = home / "envoy" / "envoy.json"
    if not path.exists():
        raise SettingsError(f"{path} is written by the first `mercat up`, from {DESCRIPTORS.name}; start it once.")
    typer.echo(path.read_text())
    return 0
