"""A test run on several workers (``make test``, pytest-xdist): what stays together, what starts first, what they share.

A worker takes one test file after the other, and everything of a session (S3 server, sandbox models) exists once per
worker. Those files of the fleet that share a running one go to one worker as one piece; other tests give way to
fleets, which mostly wait. Long files start first, so that workers end together.

What does not belong here: fixtures, and anything that a run in one process would notice.
"""

import os
from typing import Any

import pytest
from xdist.scheduler.loadscope import LoadScopeScheduling

MOST_WORKERS = 6
NICENESS = 5
"""Of everything but the fleet: a third of its share of a busy CPU."""
GAVE_WAY = pytest.StashKey[bool]()

FLEET = "tests/integration/fleet/"

SHARED_FLEET = tuple(f"{FLEET}test_{name}.py" for name in ("cancel", "lost_workers", "planned_stop", "warm_workers"))
"""Files that go to one worker, in their order, as they share a running fleet."""

FIRST = (
    f"{FLEET}test_real_code_location.py",
    *SHARED_FLEET,
    "tests/integration/orchestration/test_graph.py",
    "tests/integration/orchestration/test_bad_input.py",
    "tests/integration/orchestration/test_browser.py",
    FLEET,
    "tests/integration/orchestration/",
    "tests/integration/",
    "tests/unit/one_to_all/",
    "tests/unit/sandbox/",
    "tests/golden/",
)
"""What takes longest, as beginnings of paths; all other tests follow."""


def pytest_configure() -> None:
    """Before torch is imported: one thread per worker, as the workers share the CPUs.

    And the size of a terminal, which only workers find in their environment, does not reach what tests print.
    """
    if is_worker():
        os.environ.setdefault("OMP_NUM_THREADS", "1")
        for name in ("COLUMNS", "LINES"):
            os.environ.pop(name, None)


@pytest.hookimpl(optionalhook=True, tryfirst=True)
def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """``-n auto``: one worker per CPU that this process may use, and two more for tests of fleets, which mostly wait.

    More than six have too little to share out, and each imports everything.
    """
    waiting = 0 if "not slow" in config.option.markexpr else 2
    return min(len(os.sched_getaffinity(0)) + waiting, MOST_WORKERS)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Whatever else runs gives way to fleets, whose many processes watch each other."""
    if is_worker() and not item.nodeid.startswith(FLEET) and not item.config.stash.get(GAVE_WAY, False):
        item.config.stash[GAVE_WAY] = True
        os.nice(NICENESS)


class FilesAndFolders(LoadScopeScheduling):
    """Hands out files, and those of ``SHARED_FLEET`` as if they were one."""

    def _split_scope(self, nodeid: str) -> str:
        return scope_of(nodeid)


def scope_of(nodeid: str) -> str:
    """What a test is handed out with: its file, or all that share a fleet."""
    file = nodeid.split("::", 1)[0]
    return FLEET if file in SHARED_FLEET else file


def rank_of(nodeid: str) -> int:
    """Place of a test among ``FIRST``; one after the last for all others."""
    return next((place for place, beginning in enumerate(FIRST) if nodeid.startswith(beginning)), len(FIRST))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> LoadScopeScheduling | None:
    if config.getoption("dist") != "loadfile":
        return None
    config.option.loadscopereorder = False  # the order of the workers' collection, not "most tests first"
    return FilesAndFolders(config, log)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if is_worker():
        items.sort(key=lambda item: rank_of(item.nodeid))  # stable: within a folder as before


def is_worker() -> bool:
    """True in a process that another one gave tests to."""
    return "PYTEST_XDIST_WORKER" in os.environ
