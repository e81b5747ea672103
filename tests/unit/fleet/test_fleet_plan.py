"""Which GPUs the workers of one machine get."""

from pathlib import Path

import pytest

from libs.errors import SettingsError
from libs.one_to_all.parallel.plan import ONE_PROCESS, ParallelPlan
from libs.settings import Settings
from orchestration.fleet.local.fleet_plan import gpus_of_workers, plan_for_this_machine


@pytest.mark.parametrize(
    ("count", "parallel", "workers"),
    [
        (0, ParallelPlan(guidance=3), []),
        (2, ONE_PROCESS, ["0", "1"]),
        (4, ParallelPlan(context=2), ["0,1", "2,3"]),
        (8, ParallelPlan(guidance=3), ["0,1,2", "3,4,5"]),
        (8, ParallelPlan(guidance=3, context=2), ["0,1,2,3,4,5"]),
    ],
)
def test_gpus_that_share_a_clip_are_one_workers(count: int, parallel: ParallelPlan, workers: list[str]) -> None:
    assert gpus_of_workers([str(index) for index in range(count)], parallel) == workers


def test_too_few_gpus_are_an_error() -> None:
    with pytest.raises(SettingsError, match="guidance:3 needs 3 GPUs per worker, and this machine has 2"):
        gpus_of_workers(["0", "1"], ParallelPlan(guidance=3))


def test_logs_lie_with_the_fleet_unless_log_dir_says_where(tmp_path: Path) -> None:
    values = {"data_dir": tmp_path / "data", "one_to_all_device": "cpu", "_env_file": None}
    assert plan_for_this_machine(Settings(**values), 1, 3000).logs == tmp_path / "data" / "fleet" / "logs"
    settings = Settings(**values, log_dir=tmp_path / "logs")
    assert plan_for_this_machine(settings, 1, 3000).logs == tmp_path / "logs"
