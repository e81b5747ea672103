"""The executor of runs: all steps in one process, where an interrupt ends the run even if a step has a retry policy.

One process per run: a worker that stays alive keeps the model, and the assets of a run share it.
"""

from collections.abc import Iterator
from typing import Any

import dagster as dg

from orchestration.crashes import is_interruption
from orchestration.dagster_internals import (
    DagsterEventType,
    DagsterExecutionInterruptedError,
    ExecutionPlan,
    InProcessExecutor,
    PlanOrchestrationContext,
    RetryMode,
    StepDependencyConfig,
)


class InterruptibleExecutor(InProcessExecutor):
    """Dagster's in-process executor; it does not answer an interrupt with another attempt of the step."""

    def execute(
        self, plan_context: PlanOrchestrationContext, execution_plan: ExecutionPlan
    ) -> Iterator[dg.DagsterEvent]:
        """Execute the plan.

        Raises:
            DagsterExecutionInterruptedError: the run was canceled, or its process was told to end.
        """
        for event in super().execute(plan_context, execution_plan):
            yield event
            if event.event_type == DagsterEventType.STEP_UP_FOR_RETRY and is_interruption(event.step_retry_data.error):
                raise DagsterExecutionInterruptedError()


@dg.executor(name="in_process", config_schema=dg.in_process_executor.config_schema.as_field())
def interruptible_executor(context: dg.InitExecutorContext) -> InterruptibleExecutor:
    """Executes all steps of a run in one process."""
    config: dict[str, Any] = dict(context.executor_config)
    return InterruptibleExecutor(
        retries=RetryMode.from_config(config["retries"]) or RetryMode.ENABLED,
        step_dependency_config=StepDependencyConfig.from_config(config.get("step_dependency_config")),
    )
