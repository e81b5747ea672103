"""Ids, names and messages of others are shown as they are written by everything the command line prints."""

import io
import sys
import unicodedata
from collections.abc import Callable
from datetime import UTC, datetime
from types import SimpleNamespace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from libs.command_line import models
from libs.command_line.console.terminal import PlainTable, console, print_error, shown_progress, survive_odd_characters
from libs.command_line.requests import trace
from libs.command_line.storage import commands as storage
from libs.errors import InputError
from libs.housekeeping.inspection import Inspection, Problem, ProblemKind
from libs.messages.printable import escaped
from libs.model_repo.verification.report import FileResult, PartResult, VerificationReport
from libs.provenance.trace import Link, LinkState
from libs.storage.backends.store import ObjectInfo
from orchestration.laptop import terminal_progress as bars

NASTY = [
    "[/nope]",
    "dance[final].mp4",
    "[bold]x[/bold]",
    "[link=file:///etc]y[/link]",
    "\\[x]",
    ":smile:",
    "a\nb",
    "\r",
    "\x1b[2J\x1b]0;gone\x07",
    "\x9b31m",
    "\u202egnp.exe",
    "\u2028",
    "\udcff",
    "舞蹈 e\u0301",
]
texts = st.sampled_from(NASTY) | st.text(st.characters(), min_size=1, max_size=30)

Output = Callable[[str], None]


def _table(text: str) -> None:
    table = PlainTable("a", "b")
    table.add_row(text, text)
    console.print(table)


def _lines_of_progress(text: str) -> None:
    with shown_progress() as report:
        report(text, 1, 2, text)


def _verification(text: str) -> None:
    file = FileResult("checkpoint", text, "mismatch", 1)
    part = PartResult("checkpoint", "mismatch", 1, 1, text)
    models.print_report(VerificationReport("sandbox", text, "fast", "", (part,), (file,), (text,)))


def _inspection(text: str) -> None:
    info = ObjectInfo(text, 1, datetime(2026, 1, 1, tzinfo=UTC), None)
    problem = Problem(ProblemKind.MISSING, text, text, text, text, newest=True)
    found = Inspection(1, 1, 1, 1, (problem,), (info,), (info,))
    storage.print_inspection(SimpleNamespace(uri=lambda key: key), found, [info])  # type: ignore[arg-type]


def _trace(text: str) -> None:
    link = Link(text, text, LinkState.CHANGED, text)
    trace.show_trace(SimpleNamespace(links=[link], out_of_date=[link], run=None))  # type: ignore[arg-type]


OUTPUTS: dict[str, Output] = {
    "line": console.print,
    "table": _table,
    "error": print_error,
    "progress": _lines_of_progress,
    "models verify": _verification,
    "storage check": _inspection,
    "trace": _trace,
}


@pytest.mark.parametrize("name", OUTPUTS)
@given(text=texts)
@settings(
    max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow], deadline=None
)
def test_every_output_shows_text_as_it_is_written(name: str, capsys: pytest.CaptureFixture[str], text: str) -> None:
    survive_odd_characters(sys.stdout, sys.stderr)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COLUMNS", "400")
        OUTPUTS[name](text)
    shown = "".join(capsys.readouterr())
    seen = "".join(shown.split())
    assert all("".join(escaped(line).split()) in seen for line in text.split("\n")), shown
    hidden = {character for character in shown if unicodedata.category(character) in {"Cc", "Cf", "Cs"}}
    assert hidden <= {"\n"}


def test_a_name_of_several_lines_stays_on_one() -> None:
    assert escaped("a\nb\x1b[2J\udcff") == "a\\nb\\x1b[2J\\udcff"
    assert escaped("舞蹈\u3000e\u0301") == "舞蹈\u3000e\u0301"


def test_bars_of_a_terminal_take_no_markup(monkeypatch: pytest.MonkeyPatch) -> None:
    from rich.console import Console

    stream = io.StringIO()
    with bars.terminal_progress(Console(file=stream, force_terminal=True, width=200)):
        bars._report("poses [/nope]", 1, 2, "dance[final].mp4 [/nope]")
    assert "dance[final].mp4 [/nope]" in stream.getvalue()


def test_an_error_of_a_command_is_plain(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    from libs.command_line import main as entry

    def fails() -> None:
        raise InputError("[/nope]\x1b[2J: no such file")

    monkeypatch.setattr(entry, "app", fails)
    with pytest.raises(SystemExit):
        entry.main()
    assert capsys.readouterr().err == "error: [/nope]\\x1b[2J: no such file\n"
