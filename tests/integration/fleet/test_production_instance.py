"""The shipped production instance on real servers: PostgreSQL, an S3 server with a user of few rights, Redis, a worker.

Its pieces are those of ``infra/dagster.prod.yaml`` as it is; the code location is the toy of the other tests here.
"""

import json
import os
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import dagster as dg
import psycopg2.extensions
import pytest
import sqlalchemy
import yaml
from dagster._core.scheduler.instigation import InstigatorType
from dagster._core.storage.tags import RUN_FAILURE_REASON_TAG as FAILURE_TAG
from dagster._core.storage.tags import WILL_RETRY_TAG
from observed_fleet import ObservedFleet, running, toy_plan
from typer.testing import CliRunner

from libs.command_line.storage.commands import app as storage_commands
from libs.settings import REPOSITORY_ROOT, get_settings
from orchestration.fleet.postgres_storage import ANSWER_SECONDS, waiting_at_most
from orchestration.fleet.preflight import DATABASE_VARIABLE, check_environment
from orchestration.housekeeping.old_runs import delete_runs
from tests.postgres_server import PostgresServer, find_postgres, postgres_server
from tests.s3_server import S3Server
from tests.waiting import wait_until

SHIPPED = yaml.safe_load((REPOSITORY_ROOT / "infra" / "dagster.prod.yaml").read_text())
BUCKET = "production"
RUNS_PAGE = "query($id: ID!) { runOrError(runId: $id) { __typename ... on Run { status } } }"

pytestmark = pytest.mark.s3

sweep = pytest.mark.skipif(not os.environ.get("OUTAGE_SWEEP"), reason="minutes: make explore runs them")


@dataclass
class Production:
    fleet: ObservedFleet
    postgres: PostgresServer
    bucket: Any
    """As the administrator sees it: a boto3 client."""
    folder: Path

    def output(self, run_id: str) -> dict[str, str]:
        """What the run has printed so far, as the bucket has it: the end of each key -> text."""
        prefix = f"team/compute_logs/storage/{run_id}/"
        found = self.bucket.list_objects_v2(Bucket=BUCKET, Prefix=prefix).get("Contents", [])
        bodies = {
            entry["Key"]: self.bucket.get_object(Bucket=BUCKET, Key=entry["Key"])["Body"].read() for entry in found
        }
        return {key.partition(".")[2]: body.decode() for key, body in bodies.items()}


@pytest.fixture(scope="module")
def production(s3_server: S3Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Production]:
    if find_postgres() is None:
        pytest.skip("PostgreSQL is not installed (apt-get install postgresql)")
    folder = tmp_path_factory.mktemp("production")
    administrator = {"MINIO_ROOT_USER": s3_server.access_key, "MINIO_ROOT_PASSWORD": s3_server.secret_key}
    with postgres_server() as postgres, pytest.MonkeyPatch.context() as patch:
        base = toy_plan(folder, storage=None, gpu_workers=1)
        environment = {
            **base.environment,
            **s3_server.environment(BUCKET),
            "S3_ACCESS_KEY": "production-user",
            "S3_SECRET_KEY": "production-secret-0123",
            "S3_PREFIX": "team",
            "S3_PUBLIC_ENDPOINT": "",
            DATABASE_VARIABLE: postgres.url(),
        }
        for name, value in (environment | administrator).items():
            patch.setenv(name, value)
        get_settings.cache_clear()
        prepared = CliRunner().invoke(storage_commands, ["prepare", "--apply"], catch_exceptions=False)
        assert prepared.exit_code == 0, prepared.output
        for name in administrator:  # the fleet knows nothing of it
            patch.delenv(name)
        get_settings.cache_clear()
        client = boto3.client(
            "s3",
            endpoint_url=s3_server.endpoint,
            region_name="us-east-1",
            aws_access_key_id=s3_server.access_key,
            aws_secret_access_key=s3_server.secret_key,
        )
        with running(toy_plan(folder, storage=None, gpu_workers=1, environment=environment)) as fleet:
            patch.setenv("REDIS_URL", fleet.redis_url)
            check_environment()
            with fleet.instance() as instance:
                yield Production(ObservedFleet(fleet, folder / "notes", instance), postgres, client, folder)


def test_a_run_from_launch_to_restore(production: Production) -> None:
    """Queue and limit, output while it runs, a restart of PostgreSQL, the events, a backup, and the end of the run."""
    fleet, postgres = production.fleet, production.postgres
    first = fleet.launch("held-first")
    second = fleet.launch("second")
    fleet.started(first)
    live = wait_until("output of a running step is in the bucket", lambda: production.output(first).get("out.partial"))
    assert live == "clip held-first: cold\n"
    assert fleet.run(first).status == dg.DagsterRunStatus.STARTED
    assert fleet.run(second).status == dg.DagsterRunStatus.QUEUED, "one slot of pool gpu for two runs"

    answer = wait_until("the UI waits for the database instead of failing", lambda: during_an_outage(production, first))
    assert answer["status"] == "STARTED"
    (fleet.folder / "go-held-first").touch()

    for run_id, clip in ((first, "held-first"), (second, "second")):
        assert fleet.finish(run_id) == dg.DagsterRunStatus.SUCCESS, fleet.messages(run_id)
        assert len(fleet.runs_of(clip)) == 1, "the outage cost no run"
    assert {end: text for end, text in production.output(first).items() if "partial" in end} == {}
    assert production.output(first)["out"] == "clip held-first: cold\nclip held-first: done\n"
    assert production.output(second)["out"] == "clip second: warm\nclip second: done\n"
    logs = "".join(path.read_text(errors="replace") for path in (production.folder / "fleet" / "logs").iterdir())
    assert "Retrying failed database connection" in logs
    assert f'connection to server at "127.0.0.1", port {postgres.port} failed' in logs
    assert postgres.password not in logs

    events = [record.dagster_event_type for record in fleet.instance.all_logs(first)]
    assert dg.DagsterEventType.ASSET_MATERIALIZATION in events
    assert postgres.query(f"select status from runs where run_id = '{first}'") == [("SUCCESS",)]
    assert postgres.query(f"select count(*) from event_logs where run_id = '{first}'") == [(len(events),)]
    assert not [*production.folder.rglob("*.db")], "nothing may be left to SQLite"

    assert_a_backup_restores(production, first)

    deleted = list(delete_runs(fleet.instance, [first]))
    assert deleted == [1]
    assert production.output(first) == {}
    assert "out" in production.output(second)


def during_an_outage(production: Production, run_id: str) -> dict[str, Any] | None:
    """What the UI answers once the database is back; nothing where that takes longer than Dagster tries, some 6 s."""
    log = production.folder / "fleet" / "logs" / "webserver.log"

    def tries() -> int:
        return log.read_text(errors="replace").count("Retrying failed database connection")

    before = tries()
    production.postgres.stop()
    with ThreadPoolExecutor(1) as browser:
        answer = browser.submit(production.fleet.ask_ui, RUNS_PAGE, {"id": run_id})
        wait_until("the UI asks the database again", lambda: answer.done() or tries() > before)
        production.postgres.start()
        return None if isinstance(answer.exception(), AssertionError) else answer.result()


def assert_a_backup_restores(production: Production, run_id: str) -> None:
    """As docs/operations.md says; the restored instance knows runs, events, partitions, limits and what is fresh."""
    backup = production.folder / "dagster.dump"
    production.postgres.dump("dagster", backup)
    production.postgres.create_database("restored")
    production.postgres.restore(backup, "restored")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(DATABASE_VARIABLE, production.postgres.url("restored"))
        with production.fleet.fleet.instance() as restored:
            original = production.fleet.instance
            run = restored.get_run_by_id(run_id)
            assert run is not None
            assert run.status == dg.DagsterRunStatus.SUCCESS
            assert [record.message for record in restored.all_logs(run_id)] == [
                record.message for record in original.all_logs(run_id)
            ]
            assert restored.get_dynamic_partitions("clips") == original.get_dynamic_partitions("clips")
            assert restored.event_log_storage.get_pool_limits() == original.event_log_storage.get_pool_limits()
            newest = restored.get_latest_materialization_event(dg.AssetKey("clip"))
            assert newest is not None
            assert newest.run_id == original.get_latest_materialization_event(dg.AssetKey("clip")).run_id


@pytest.mark.parametrize(
    "seconds",
    [15, *(pytest.param(other, marks=sweep) for other in (3, 8, 12, 20, 25, 40))],
)
def test_a_database_outage_fails_no_run_for_good(production: Production, seconds: int) -> None:
    """While the asset writes events: the driver's error surfaces there, and may be stored as the asset's own."""
    fleet, clip = production.fleet, f"chatty-{seconds}"
    run_id = fleet.launch(clip)
    fleet.started(run_id)
    fleet.wait_until("it writes events", lambda: len(observations(fleet, run_id)) > 2)
    production.postgres.stop()
    time.sleep(seconds)
    production.postgres.start()
    # A short outage is waited for within the asset, which then goes on.
    (fleet.folder / f"go-{clip}").touch()

    def made() -> bool:
        last = fleet.runs_of(clip)[-1]
        failed_for_good = last.status == dg.DagsterRunStatus.FAILURE and last.tags.get(WILL_RETRY_TAG) == "false"
        assert not failed_for_good, fleet.messages(last.run_id)
        return last.status == dg.DagsterRunStatus.SUCCESS

    fleet.wait_until(f"{clip} is made", made)
    first = fleet.run(run_id)
    print(f"{seconds} s: {len(fleet.runs_of(clip))} runs; the first: {first.status}, {first.tags.get(FAILURE_TAG)}")


def test_a_statement_without_an_answer_ends_and_the_next_connection_works(production: Production) -> None:
    """As for an event that is written while the database hangs."""
    storage = production.fleet.instance.run_storage
    assert psycopg2.extensions.get_wait_callback() is not None, "the shipped instance bounds every wait"
    with storage.connect() as connection:
        psycopg2.extensions.set_wait_callback(waiting_at_most(0.5))
        try:
            with pytest.raises(sqlalchemy.exc.OperationalError, match="has not answered"):
                connection.execute(sqlalchemy.text("select pg_sleep(30)"))
        finally:
            psycopg2.extensions.set_wait_callback(waiting_at_most(ANSWER_SECONDS))
    assert not storage.has_run("nobody-made-this")


def observations(fleet: ObservedFleet, run_id: str) -> list[Any]:
    return fleet.instance.all_logs(run_id, of_type=dg.DagsterEventType.ASSET_OBSERVATION)


def test_limits_and_policies_are_those_of_the_file(production: Production) -> None:
    instance = production.fleet.instance
    (gpu,) = instance.event_log_storage.get_pool_limits()
    assert (gpu.name, gpu.limit) == ("gpu", 1)
    limits = instance.get_concurrency_config().run_queue_config
    assert limits is not None
    shipped = SHIPPED["concurrency"]["runs"]["tag_concurrency_limits"]
    assert [limit["key"] for limit in limits.tag_concurrency_limits] == [limit["key"] for limit in shipped]
    assert instance.run_monitoring_enabled
    assert instance.run_retries_enabled
    assert instance.run_retries_max_retries == SHIPPED["run_retries"]["max_retries"]
    kept = instance.get_tick_retention_settings(InstigatorType.SENSOR)
    assert {status.value.lower(): days for status, days in kept.items()} == SHIPPED["retention"]["sensor"][
        "purge_after_days"
    ]


def test_no_secret_is_in_the_home_or_in_a_log(production: Production) -> None:
    texts = [path.read_text() for path in production.fleet.fleet.home.glob("*.yaml")]
    texts += [path.read_text(errors="replace") for path in (production.folder / "fleet" / "logs").iterdir()]
    texts.append(json.dumps(production.fleet.instance.get_ref().to_dict(), default=str))
    for secret in (production.postgres.password, "production-secret-0123"):
        assert not [text for text in texts if secret in text]
