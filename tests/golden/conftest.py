"""Golden runs: the ``record_case`` fixture, the summary at the end, and failure of a run that compared nothing."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

# Test modules are imported by file (import mode importlib), so the module they share is made importable here.
sys.path.insert(0, str(Path(__file__).resolve().parent))

from golden_folders import RECORD

_HERE = Path(__file__).resolve().parent


@pytest.fixture
def record_case() -> Callable[..., None]:
    """``record_case(kind, error)``: call it once per case, before asserting, with the case's largest error or None."""
    return RECORD.add


def _golden_items_were_selected(session: pytest.Session) -> bool:
    return any(_HERE in item.path.parents for item in session.items)


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """A golden run that compared nothing has not passed."""
    if session.config.option.collectonly or exitstatus != pytest.ExitCode.OK:
        return
    if _golden_items_were_selected(session) and not RECORD.ran:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """How many cases of each kind ran, the largest error of each kind, and what a folder lacks."""
    if not RECORD.found:
        return
    terminalreporter.section("golden test vectors")
    for line in RECORD.lines():
        terminalreporter.write_line(line)
    if not RECORD.ran:
        terminalreporter.write_line("no golden case was run: this run does not count as passed", red=True)
