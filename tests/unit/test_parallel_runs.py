"""What stays together and starts first on several workers: folders that are there, and files of their own else."""

import pytest

from libs.settings import REPOSITORY_ROOT
from tests.parallel_runs import FIRST, TOGETHER, rank_of, scope_of


@pytest.mark.parametrize("folder", sorted({*TOGETHER, *FIRST}))
def test_folders_named_in_the_parallel_order_hold_tests(folder) -> None:
    assert list((REPOSITORY_ROOT / folder).rglob("test_*.py"))


def test_the_fleet_is_one_piece_and_comes_first_and_another_file_is_a_piece() -> None:
    stop, cancel = (f"tests/integration/fleet/test_{name}.py::test_x[a::b]" for name in ("stop", "cancel"))
    settings = "tests/unit/test_settings.py::test_x"
    assert scope_of(stop) == scope_of(cancel) == "tests/integration/fleet"
    assert scope_of(settings) == "tests/unit/test_settings.py"
    assert scope_of("tests/unit/fleet/test_processes.py::test_x") == "tests/unit/fleet/test_processes.py"
    assert rank_of(stop) == 0 < rank_of("tests/integration/storage/test_faults.py::test_x") < rank_of(settings)
