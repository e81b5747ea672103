"""What a golden run says at its end, and its failure where it compared nothing; in one process or on several workers.

A worker hands its counts to the process that started it, which collects no tests itself. What does not belong here:
finding and counting cases (``golden_folders``).
"""

from pathlib import Path
from typing import Any

import pytest
from golden_folders import RECORD

_HERE = Path(__file__).resolve().parent
_SELECTED = "golden tests were selected"
_RECORD = "golden record"


def _golden_items_were_selected(session: pytest.Session) -> bool:
    return any(_HERE in item.path.parents for item in session.items)


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """A golden run that compared nothing has not passed."""
    config = session.config
    if hasattr(config, "workeroutput"):
        config.workeroutput[_RECORD] = RECORD.as_plain()
        config.workeroutput[_SELECTED] = _golden_items_were_selected(session)
        return
    if config.option.collectonly or exitstatus != pytest.ExitCode.OK:
        return
    selected = _golden_items_were_selected(session) or config.stash.get(SELECTED_BY_WORKERS, False)
    if selected and not RECORD.ran:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


SELECTED_BY_WORKERS = pytest.StashKey[bool]()


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Add up what a worker counted; one that crashed has nothing to tell."""
    output = getattr(node, "workeroutput", {})
    if _RECORD in output:
        RECORD.add_plain(output[_RECORD])
        stash = node.config.stash
        stash[SELECTED_BY_WORKERS] = stash.get(SELECTED_BY_WORKERS, False) or output[_SELECTED]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """How many cases of each kind ran, the largest error of each kind, and what a folder lacks."""
    if not RECORD.found:
        return
    terminalreporter.section("golden test vectors")
    for line in RECORD.lines():
        terminalreporter.write_line(line)
    if not RECORD.ran:
        terminalreporter.write_line("no golden case was run: this run does not count as passed", red=True)
