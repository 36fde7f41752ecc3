"""The root: what `mercat --help` lists is what there is."""

import importlib
import inspect
import subprocess
import sys
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from services.cli.main import COMMANDS, build

ENTRIES = [(name, *entry) for panel in COMMANDS.values() for name, entry in panel.items()]


def registered(module: str) -> dict[str, Any]:
    app = typer.Typer(callback=lambda: None)
    importlib.import_module(f"services.cli.{module}").register(app)
    return dict(typer.main.get_group(app).commands)


@pytest.mark.parametrize(("name", "module", "sentence"), ENTRIES)
def test_each_command_is_registered_under_its_sentence(name: str, module: str, sentence: str) -> None:
    help_text = inspect.cleandoc(registered(module)[name].help or "")
    assert help_text.split("\n\n")[0].replace("\n", " ").startswith(sentence.rstrip("."))


@pytest.mark.parametrize("module", sorted({module for _, module, _ in ENTRIES}))
def test_each_module_registers_nothing_that_is_not_listed(module: str) -> None:
    assert set(registered(module)) == {name for name, of, _ in ENTRIES if of == module}


def leaves(command: Any, path: tuple[str, ...]) -> list[tuple[tuple[str, ...], Any]]:
    below = getattr(command, "commands", None)
    if not below:
        return [(path, command)]
    return [leaf for name, sub in below.items() for leaf in leaves(sub, (*path, name))]


OURS = {
    "account", "keys", "search", "explore", "following", "ratings", "initiating", "infer", "models", "pricing", "usage",
    "wallet", "ledger",
}  # fmt: skip


@pytest.mark.parametrize("name", [name for name, module, _ in ENTRIES if module in OURS])
def test_each_command_for_people_has_an_example_and_json(name: str) -> None:
    module = next(of for known, of, _ in ENTRIES if known == name)
    for path, command in leaves(registered(module)[name], (name,)):
        assert "Example" in command.help, path
        options = {option for parameter in command.params for option in parameter.opts}
        assert {"--json", "--server", "--api-key", "--profile"} <= options, path


def test_wrong_command_lines_end_in_two() -> None:
    runner = CliRunner()
    assert runner.invoke(build(), ["nonsense"]).exit_code == 2
    assert runner.invoke(build(), ["keys", "create"]).exit_code == 2
    assert runner.invoke(build(), ["topup", "ten"]).exit_code == 2
    assert runner.invoke(build(), ["infer", "a/b"]).exit_code == 2


def test_help_imports_no_command() -> None:
    code = (
        "import sys; from services.cli.main import build; from typer.testing import CliRunner;"
        "assert CliRunner().invoke(build(), ['--help']).exit_code == 0;"
        "print([m for m in ('grpc', 'pydantic', 'redis', 'numpy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"


def test_a_command_that_is_inside_another_is_named() -> None:
    assert "`mercat explore compare`" in CliRunner().invoke(build(), ["compare"]).output
    assert "`mercat models publish`" in CliRunner().invoke(build(), ["publish", "adder@1.0.0"]).output
