"""A test run on several workers (``make test``, pytest-xdist): what stays together, what starts first, what they share.

A worker takes one test file after the other, and everything of a session (S3 server, sandbox models) exists once per
worker. The fleet's files go to one worker as one piece: they share a running fleet, and two fleets at once would make
both miss their deadlines on a small machine; other tests give way to it. Long files start first, so that workers end
together.

What does not belong here: fixtures, and anything that a run in one process would notice.
"""

import os
from typing import Any

import pytest
from xdist.scheduler.loadscope import LoadScopeScheduling

MOST_WORKERS = 5
NICENESS = 5
"""Of everything but the fleet: a third of its share of a busy CPU."""
GAVE_WAY = pytest.StashKey[bool]()

TOGETHER = ("tests/integration/fleet",)
"""Folders whose files go to one worker, in their order."""

FIRST = (
    "tests/integration/fleet",
    "tests/integration/orchestration",
    "tests/integration",
    "tests/unit/one_to_all",
    "tests/golden",
)
"""What takes longest; all other tests follow."""


def pytest_configure() -> None:
    """Before torch is imported: one thread per worker, as the workers share the CPUs.

    And the size of a terminal, which only workers find in their environment, does not reach what tests print.
    """
    if is_worker():
        os.environ.setdefault("OMP_NUM_THREADS", "1")
        for name in ("COLUMNS", "LINES"):
            os.environ.pop(name, None)


@pytest.hookimpl(optionalhook=True, tryfirst=True)
def pytest_xdist_auto_num_workers() -> int:
    """``-n auto``: one worker per CPU that this process may use, and one more, as the fleet's tests mostly wait.

    More than five have too little to share out.
    """
    return min(len(os.sched_getaffinity(0)) + 1, MOST_WORKERS)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Whatever else runs gives way to the fleet, whose deadlines are tests."""
    if is_worker() and scope_of(item.nodeid) not in TOGETHER and not item.config.stash.get(GAVE_WAY, False):
        item.config.stash[GAVE_WAY] = True
        os.nice(NICENESS)


class FilesAndFolders(LoadScopeScheduling):
    """Hands out files, and the folders of ``TOGETHER`` as if each were one file."""

    def _split_scope(self, nodeid: str) -> str:
        return scope_of(nodeid)


def scope_of(nodeid: str) -> str:
    """What a test is handed out with: its file, or its folder."""
    file = nodeid.split("::", 1)[0]
    return next((folder for folder in TOGETHER if file.startswith(f"{folder}/")), file)


def rank_of(nodeid: str) -> int:
    """Place of a test's folder among ``FIRST``; one after the last for all others."""
    return next((place for place, folder in enumerate(FIRST) if nodeid.startswith(f"{folder}/")), len(FIRST))


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
