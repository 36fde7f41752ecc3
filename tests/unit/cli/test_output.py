"""What failures look like, and what people and programs are shown."""

import json
from datetime import UTC, datetime

import pytest
import typer
from google.protobuf.timestamp_pb2 import Timestamp
from mercat.common.v1 import tensor_pb2
from rich.console import Console

from services.cli import output
from services.cli.client import Unreachable
from services.cli.session import Refusal
from services.cli.telling import step
from services.cli.times import parse_span, parse_time
from services.cli.versions import show_spec
from services.common.errors import InsufficientCredit, InvalidFields, Violation


def test_a_refusal_says_why_and_what_to_do(capsys: pytest.CaptureFixture[str]) -> None:
    error = InsufficientCredit("the wallet has 0.00 USD", metadata={"request_id": "req_1"})
    assert output.fail(error, as_json=False) == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert "mercat: the wallet has 0.00 USD" in said.err
    for part in ("INSUFFICIENT_CREDIT", "mercat topup 10", "req_1"):
        assert part in said.err


def test_fields_are_a_list_and_said_once(capsys: pytest.CaptureFixture[str]) -> None:
    error = InvalidFields(violations=[Violation("email", "is required"), Violation("name", "is [too] long")])
    assert output.fail(error, as_json=False) == 1
    said = capsys.readouterr().err
    assert said.count("is required") == 1
    assert "• name: is [too] long" in said


def test_failures_as_json_leave_standard_output_alone(capsys: pytest.CaptureFixture[str]) -> None:
    error = InvalidFields(violations=[Violation("email", "is required")], metadata={"request_id": "req_1"})
    assert output.fail(error, as_json=True) == 1
    said = capsys.readouterr()
    assert said.out == ""
    shown = json.loads(said.err)["error"]
    assert (shown["reason"], shown["requestId"]) == ("INVALID_FIELDS", "req_1")
    assert shown["violations"] == [{"field": "email", "description": "is required"}]


def test_nobody_there(capsys: pytest.CaptureFixture[str]) -> None:
    assert output.fail(Unreachable("Nobody answers at 127.0.0.1:1."), as_json=False) == 3
    assert "mercat up" in capsys.readouterr().err
    assert output.fail(Refusal("No.", "do this"), as_json=False) == 1
    assert "do this" in capsys.readouterr().err


def test_text_of_others_cannot_steer_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    output.table(["summary"], [("\x1b[2Jgone [bold]not bold[/]\x9b1m\x07",)], empty="")
    shown = capsys.readouterr().out
    assert not {"\x1b", "\x9b", "\x07"} & set(shown)
    assert "[bold]not bold[/]" in shown


def test_figures() -> None:
    assert [output.size(n) for n in (0, 1023, 1024, 23_488_102)] == ["0 B", "1023 B", "1.0 KiB", "22.4 MiB"]
    assert [output.duration(n) for n in (340, 12_345, 1_500_000)] == ["340 µs", "12.3 ms", "1.50 s"]
    assert output.when(Timestamp(seconds=1)) == "1970-01-01 00:00:01"
    assert output.when(Timestamp()) == ""


def test_spans_and_times() -> None:
    now = datetime(2026, 1, 31, 12, tzinfo=UTC)
    assert [parse_span(text) for text in ("90s", "15m", "12h", "30d")] == [90, 900, 43_200, 2_592_000]
    assert parse_time("12h", now) == datetime(2026, 1, 31, tzinfo=UTC)
    assert parse_time("2026-01-30", now) == datetime(2026, 1, 30, tzinfo=UTC)
    assert parse_time("2026-01-30T01:00+02:00", now) == datetime(2026, 1, 29, 23, tzinfo=UTC)
    for text in ("", "soon", "12", "-1h", "1w"):
        with pytest.raises(typer.BadParameter):
            parse_time(text, now)


def test_axes_are_shown_as_they_are_named() -> None:
    spec = tensor_pb2.TensorSpec(name="x", datatype="FP32", shape=[-1, 4, -1, -1], axes=["batch", "", "unk__7", ""])
    assert show_spec(spec) == "x FP32 [batch, 4, any, any]"
    assert show_spec(tensor_pb2.TensorSpec(name="x", datatype="INT8", shape=[-1, 3])) == "x INT8 [any, 3]"


def test_a_narrow_terminal_goes_without_what_can_be_spared(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [("ada/a-name-that-is-not-broken", "1.0.0", "7", "What it does, in many words that go on and on and on")]
    heads = ["model", "version", "calls", "summary"]
    for width, shown in ((120, heads), (68, ["model", "version", "summary"]), (50, ["model", "summary"])):
        monkeypatch.setattr(output, "console", lambda width=width: Console(width=width, highlight=False))
        output.table(heads, rows, empty="", whole=heads[:2], spare=["calls", "version"])
        lines = capsys.readouterr().out.splitlines()
        assert lines[0].split() == shown
        assert "ada/a-name-that-is-not-broken" in lines[1]


def test_what_has_no_answer_says_so_to_programs(capsys: pytest.CaptureFixture[str]) -> None:
    output.done("[it] is gone", as_json=True)
    output.done("[it] is gone", as_json=False)
    assert capsys.readouterr().out == "{}\n[it] is gone\n"


def test_a_long_step_is_told_in_lines_where_there_is_no_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    times = iter((0.0, 1.0, 6.0, 6.0))
    monkeypatch.setattr("services.cli.telling.time.monotonic", lambda: next(times))
    with step("uploading m.onnx", 4096) as tell:
        tell(1024)  # too soon to be said again
        tell(2048)
    with step("quiet", quiet=True) as tell:
        tell(1)
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.splitlines() == ["uploading m.onnx, 4.0 KiB …", "uploading m.onnx, 50% of 4.0 KiB …"]
