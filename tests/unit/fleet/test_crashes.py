"""The table of what ended a run: it agrees with Dagster's rule, and with the modules that notice each end."""

from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.events import RunFailureReason
from dagster._core.execution.retries import auto_reexecution_should_retry_run
from dagster._core.test_utils import create_run_for_test, instance_for_test

from orchestration.crashes import RUN_ENDS, RUN_RETRIES

REASONS = {name: end.reason for name, end in RUN_ENDS.items() if end.reason} | {
    "step failed": RunFailureReason.STEP_FAILURE,
    "never started": RunFailureReason.START_TIMEOUT,
    "worker died": RunFailureReason.UNKNOWN,  # Dagster's run monitoring gives no reason
    "worker silent": RunFailureReason.UNKNOWN,
}


@pytest.fixture(scope="module")
def instance() -> Iterator[dg.DagsterInstance]:
    with instance_for_test(overrides={"run_retries": dict(RUN_RETRIES)}) as instance:
        yield instance


@pytest.mark.parametrize("name", REASONS)
def test_dagster_makes_exactly_crashed_runs_again(instance: dg.DagsterInstance, name: str) -> None:
    run = create_run_for_test(instance, status=dg.DagsterRunStatus.FAILURE)
    assert auto_reexecution_should_retry_run(instance, run, REASONS[name]) is RUN_ENDS[name].is_crash


@pytest.mark.parametrize("name", RUN_ENDS)
def test_each_end_is_noticed_where_the_table_says(name: str) -> None:
    spec = find_spec(RUN_ENDS[name].seen_by)
    assert spec is not None
    assert spec.origin is not None
    if name not in {"step failed", "never started"}:  # the words are those of the error, or Dagster's
        assert f'RUN_ENDS["{name}"]' in Path(spec.origin).read_text()


def test_what_is_no_crash_spends_no_retry() -> None:
    assert all(end.is_crash for end in RUN_ENDS.values() if end.spends_a_retry)
