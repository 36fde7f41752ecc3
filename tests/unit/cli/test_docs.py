"""The documentation says what the code does: every reason, finding and command it names is there, and the reverse."""

import importlib
import re
from pathlib import Path
from typing import Any

import pytest
import typer

from services.cli.main import COMMANDS

ROOT = Path(__file__).parents[3]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
# Seen by an operator at a start or by Mercat's own services, never by a caller.
INWARD = {"ARTIFACT_CORRUPT", "INTERNAL_ONLY", "MIGRATION_EDITED", "OBJECT_NOT_FOUND", "SCHEMA_TOO_NEW"}


def source(*folders: str) -> str:
    return "\n".join(path.read_text() for folder in folders for path in sorted((ROOT / folder).rglob("*.py")))


def test_every_reason_is_documented() -> None:
    said = (ROOT / "docs" / "errors.md").read_text()
    reasons = set(re.findall(r'reason="([A-Z_]{3,})"', source("services", "gateway_rest"))) - INWARD
    assert {reason for reason in reasons if f"`{reason}`" not in said} == set()


def test_every_documented_reason_exists() -> None:
    known = source("services", "gateway_rest")
    rows = re.findall(r"^\| (`.*?) \|", (ROOT / "docs" / "errors.md").read_text(), re.MULTILINE)
    names = {name for row in rows for name in re.findall(r"`([A-Z_]+)`", row)}
    assert len(names) > 40
    assert {name for name in names if f'"{name}"' not in known} == set()


def test_findings_of_validation_are_documented_and_exist() -> None:
    known = source("services/registry")
    codes = set(re.findall(r'(?:Finding|Refused|refused)\(\s*"([A-Z_]+)"', known))
    rows = re.findall(r"^\| (`[A-Z].*?) \|", (ROOT / "docs" / "publishing.md").read_text(), re.MULTILINE)
    assert {name for row in rows for name in re.findall(r"`([A-Z_]+)`", row)} == codes


@pytest.fixture(scope="module")
def commands() -> dict[str, Any]:
    found: dict[str, Any] = {}
    for module in {module for panel in COMMANDS.values() for module, _ in panel.values()}:
        app = typer.Typer(callback=lambda: None)
        importlib.import_module(f"services.cli.{module}").register(app)
        found |= vars(typer.main.get_group(app))["commands"]
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_that_are_named_exist_and_take_their_options(page: Path, commands: dict[str, Any]) -> None:
    text = page.read_text().replace("\\\n", " ")
    lines = re.findall(r"^(?:\$ )?mercat ([a-z][^\n#|]*)", text, re.MULTILINE) + re.findall(
        r"`mercat ([a-z][^`]*)`", text
    )
    for line in lines:
        words = line.split()
        command = commands.get(words[0])
        assert command is not None, line
        rest = words[1:]
        while getattr(command, "commands", None) and rest and re.fullmatch(r"[a-z]+(-[a-z]+)*", rest[0]):
            assert rest[0] in command.commands, line
            command = command.commands[rest.pop(0)]
        options = {option for parameter in command.params for option in parameter.opts} | {"--help"}
        used = set(re.findall(r"(?<= )--?[a-z][a-z-]*", re.sub(r"'[^']*'|\"[^\"]*\"", "", f" {line}")))
        assert used <= options, line


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text()):
        assert (page.parent / target).exists(), target


def test_settings_that_are_named_exist() -> None:
    text = "\n".join(page.read_text() for page in PAGES)
    known = {
        f"MERCAT_{name.upper()}" for name in re.findall(r"^    (\w+): .* = option\(", source("services"), re.MULTILINE)
    }
    known |= {"MERCAT_SERVER", "MERCAT_API_KEY", "MERCAT_PROFILE", "MERCAT_CA", "MERCAT_SIGNING_KEY"}
    assert set(re.findall(r"MERCAT_[A-Z_]+[A-Z]", text)) <= known
