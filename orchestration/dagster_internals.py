"""Every interface of Dagster that has no public name, and is used here all the same. Import them from here only.

They may change with any release of Dagster. ``CHECKED_WITH`` is the release they were read and tried in; a test fails
for any other one, and says what to look at. Of objects that Dagster hands out, these are used without being public:

- ``AssetExecutionContext.get_step_execution_context``, ``StepExecutionContext.wipe_input_asset_version_info`` and
  ``job_def.asset_layer`` (``storage.observed``, ``recovery.lineage``): what a step notes of its inputs;
- ``S3ComputeLogManager._on_capture_complete`` (``fleet.compute_logs``): a step's log is about to be uploaded;
- ``QueuedRunCoordinator``, ``CeleryRunLauncher`` and the PostgreSQL storages, which are subclassed in ``fleet``.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from dagster._core.definitions.data_version import (
    CODE_VERSION_TAG,
    DATA_VERSION_IS_USER_PROVIDED_TAG,
    DATA_VERSION_TAG,
    DEFAULT_DATA_VERSION,
    NULL_EVENT_POINTER,
    CachingStaleStatusResolver,
    StaleStatus,
    extract_data_version_from_entry,
    get_input_data_version_tag,
    get_input_event_pointer_tag,
)
from dagster._core.definitions.job_base import InMemoryJob
from dagster._core.errors import DagsterExecutionInterruptedError
from dagster._core.events import (
    DagsterEventType,
    EngineEventData,
    JobFailureData,
    RunFailureReason,
)
from dagster._core.execution.api import execute_run
from dagster._core.execution.context.system import PlanOrchestrationContext
from dagster._core.execution.plan.execute_step import _get_code_version as get_code_version
from dagster._core.execution.plan.execute_step import _get_input_provenance_data as get_input_provenance_data
from dagster._core.execution.plan.plan import ExecutionPlan
from dagster._core.execution.retries import RetryMode
from dagster._core.execution.step_dependency_config import StepDependencyConfig
from dagster._core.executor.in_process import InProcessExecutor
from dagster._core.launcher import (
    CheckRunHealthResult,
    LaunchRunContext,
    WorkerStatus,
)
from dagster._core.loader import LoadingContextForTest
from dagster._core.remote_origin import (
    RemoteJobOrigin,
    RemoteRepositoryOrigin,
)
from dagster._core.run_coordinator import (
    QueuedRunCoordinator,
    SubmitRunContext,
)
from dagster._core.scheduler.instigation import (
    InstigatorStatus,
    InstigatorType,
)
from dagster._core.storage.compute_log_manager import ComputeIOType
from dagster._core.storage.dagster_run import (
    FINISHED_STATUSES,
    IN_PROGRESS_RUN_STATUSES,
)
from dagster._core.storage.tags import (
    MAX_RETRIES_TAG,
    PARTITION_NAME_TAG,
    PRIORITY_TAG,
    RUN_KEY_TAG,
    WILL_RETRY_TAG,
)
from dagster._serdes import ConfigurableClassData
from dagster._utils.concurrency import ConcurrencyKeyInfo
from dagster._utils.error import (
    SerializableErrorInfo,
    serializable_error_info_from_exc_info,
)
from dagster._utils.interrupts import capture_interrupts
from dagster._utils.schedules import is_valid_cron_schedule

if TYPE_CHECKING:
    from dagster._cli.api import _execute_run_command_body as execute_run_command_body
    from dagster._core.storage.event_log import EventLogStorage, SqliteEventLogStorage
    from dagster._core.storage.event_log.base import PoolLimit
    from dagster._core.workspace.load import location_origins_from_yaml_paths

CHECKED_WITH = "1.13.27"
"""The release of Dagster in which these interfaces were read and tried."""

_LOADED_WHEN_ASKED_FOR = {
    "execute_run_command_body": ("dagster._cli.api", "_execute_run_command_body"),
    "EventLogStorage": ("dagster._core.storage.event_log", "EventLogStorage"),
    "SqliteEventLogStorage": ("dagster._core.storage.event_log", "SqliteEventLogStorage"),
    "PoolLimit": ("dagster._core.storage.event_log.base", "PoolLimit"),
    "location_origins_from_yaml_paths": ("dagster._core.workspace.load", "location_origins_from_yaml_paths"),
}
"""Name here -> module and name there, of modules that load a database's driver or the command line."""

__all__ = [
    "CHECKED_WITH",
    "CODE_VERSION_TAG",
    "DATA_VERSION_IS_USER_PROVIDED_TAG",
    "DATA_VERSION_TAG",
    "DEFAULT_DATA_VERSION",
    "FINISHED_STATUSES",
    "IN_PROGRESS_RUN_STATUSES",
    "MAX_RETRIES_TAG",
    "NULL_EVENT_POINTER",
    "PARTITION_NAME_TAG",
    "PRIORITY_TAG",
    "RUN_KEY_TAG",
    "WILL_RETRY_TAG",
    "CachingStaleStatusResolver",
    "CheckRunHealthResult",
    "ComputeIOType",
    "ConcurrencyKeyInfo",
    "ConfigurableClassData",
    "DagsterEventType",
    "DagsterExecutionInterruptedError",
    "EngineEventData",
    "EventLogStorage",
    "ExecutionPlan",
    "InMemoryJob",
    "InProcessExecutor",
    "InstigatorStatus",
    "InstigatorType",
    "JobFailureData",
    "LaunchRunContext",
    "LoadingContextForTest",
    "PlanOrchestrationContext",
    "PoolLimit",
    "QueuedRunCoordinator",
    "RemoteJobOrigin",
    "RemoteRepositoryOrigin",
    "RetryMode",
    "RunFailureReason",
    "SerializableErrorInfo",
    "SqliteEventLogStorage",
    "StaleStatus",
    "StepDependencyConfig",
    "SubmitRunContext",
    "WorkerStatus",
    "capture_interrupts",
    "execute_run",
    "execute_run_command_body",
    "extract_data_version_from_entry",
    "get_code_version",
    "get_input_data_version_tag",
    "get_input_event_pointer_tag",
    "get_input_provenance_data",
    "is_valid_cron_schedule",
    "location_origins_from_yaml_paths",
    "serializable_error_info_from_exc_info",
]


def __getattr__(name: str) -> Any:
    """Load what few processes need when it is asked for (PEP 562)."""
    try:
        module, there = _LOADED_WHEN_ASKED_FOR[name]
    except KeyError:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}") from None
    return getattr(import_module(module), there)
