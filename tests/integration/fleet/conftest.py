"""One real fleet for all tests of this folder: Redis, Celery workers, daemon, webserver, and a toy code location."""

import shutil
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

# Test modules are imported by file (import mode importlib), so the module they share is made importable here.
sys.path.insert(0, str(Path(__file__).resolve().parent))

from observed_fleet import ObservedFleet, running, toy_plan


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    without_redis = pytest.mark.skip(reason="redis-server is not installed (apt-get install redis-server)")
    for item in items:
        if Path(__file__).parent not in item.path.parents:
            continue
        item.add_marker(pytest.mark.slow)
        if shutil.which("redis-server") is None:
            item.add_marker(without_redis)


@pytest.fixture(scope="package")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ObservedFleet]:
    folder = tmp_path_factory.mktemp("fleet")
    patch = pytest.MonkeyPatch()
    with running(toy_plan(folder)) as fleet:
        patch.setenv("REDIS_URL", fleet.redis_url)
        try:
            with fleet.instance() as instance:
                yield ObservedFleet(fleet, folder / "notes", instance)
        finally:
            patch.undo()
            for process in fleet.processes.values():  # none may stay stopped by a failed test
                if process.is_running():
                    process.signal_group(signal.SIGCONT)
