"""Runs of this process that the UI's timeline shows: it takes those whose code location it knows."""

import dagster as dg

from orchestration.laptop.local_runs import execute_here

PARTS = dg.StaticPartitionsDefinition(["a", "b"])


@dg.asset(partitions_def=PARTS)
def first(context: dg.AssetExecutionContext) -> str:
    return context.partition_key


@dg.asset(partitions_def=PARTS)
def second(first: str) -> str:
    if first == "b":
        raise dg.Failure("not for b", allow_retries=False)
    return first


DEFINITIONS = dg.Definitions(
    assets=[first, second], jobs=[dg.define_asset_job("both")], executor=dg.in_process_executor
)


def test_a_run_belongs_to_the_code_location_of_the_workspace() -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        result = execute_here(DEFINITIONS, "both", instance=instance, partition="a", selection=[first.key])
        (run,) = instance.get_runs()
        assert result.success
        assert run.tags["dagster/partition"] == "a"
        assert run.remote_job_origin is not None
        assert run.remote_job_origin.repository_origin.code_location_origin.location_name == "one_to_all"
        assert run.remote_job_origin.repository_origin.repository_name == "__repository__"
        assert run.remote_job_origin.job_name == "both"
        assert instance.get_materialized_partitions(first.key) == {"a"}
        assert instance.get_materialized_partitions(second.key) == set()


def test_a_failure_is_in_the_result() -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        keys = [first.key, second.key]
        result = execute_here(DEFINITIONS, "both", instance=instance, partition="b", selection=keys)
        assert not result.success
        assert [event.step_key for event in result.all_events if event.is_step_failure] == ["second"]
