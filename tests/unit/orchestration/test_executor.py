"""An interrupt ends a run, also within a step that would be tried again after an error."""

from pathlib import Path

import dagster as dg
import pytest
from dagster._core.definitions.job_base import InMemoryJob
from dagster._core.errors import DagsterExecutionInterruptedError
from dagster._core.execution.api import execute_run

from orchestration.definitions import defs
from orchestration.executor import interruptible_executor

CANCELED, FAILURE, SUCCESS = dg.DagsterRunStatus.CANCELED, dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.SUCCESS


@pytest.mark.parametrize(
    ("what", "attempts", "status"),
    [("interrupt", 1, FAILURE), ("cancel", 1, CANCELED), ("error", 2, SUCCESS)],
)
def test_an_interrupt_is_no_reason_for_another_attempt(
    tmp_path: Path, what: str, attempts: int, status: dg.DagsterRunStatus
) -> None:
    made: list[int] = []

    @dg.asset(retry_policy=dg.RetryPolicy(max_retries=3))
    def clip(context: dg.AssetExecutionContext) -> None:
        made.append(1)
        if len(made) > 1:
            return
        if what == "error":
            raise ValueError("once")
        if what == "cancel":
            context.instance.report_run_canceling(context.run)
        raise DagsterExecutionInterruptedError

    definitions = dg.Definitions(assets=[clip], jobs=[dg.define_asset_job("clips")], executor=interruptible_executor)
    job = definitions.resolve_job_def("clips")
    with dg.DagsterInstance.local_temp(str(tmp_path)) as instance:
        run = instance.create_run_for_job(job)
        execute_run(InMemoryJob(job), run, instance)
        ended = instance.get_run_by_id(run.run_id)
    assert (len(made), ended and ended.status) == (attempts, status)


def test_all_runs_have_it() -> None:
    assert defs.executor is interruptible_executor
