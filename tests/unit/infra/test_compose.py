"""``infra/compose.yaml`` against the Compose specification and against what this repository really holds.

Nothing is started and no container engine is needed; a Compose client that is installed reads the file, too.
"""

import importlib.util
import itertools
import json
import os
import re
import subprocess
import time
from importlib.metadata import distribution
from pathlib import Path

import dagster as dg
import pytest
import yaml
from click.testing import CliRunner
from dagster._daemon.cli import liveness_check_command
from dagster._daemon.controller import DEFAULT_HEARTBEAT_INTERVAL_SECONDS as HEARTBEAT_SECONDS
from dagster._daemon.types import DaemonHeartbeat

from libs.settings import REPOSITORY_ROOT, Settings
from libs.settings.studio import StudioSettings
from orchestration.crashes import RUN_RETRIES
from orchestration.definitions import defs
from orchestration.fleet import instance_preparation, worker, worker_health
from orchestration.fleet.local.fleet_plan import CODE_LOCATION, LOCATION_NAME
from orchestration.fleet.preflight import DATABASE_VARIABLE
from orchestration.fleet.run_coordinator import CPU_QUEUE
from orchestration.policies import GPU_POOL, GPU_QUEUE
from tests.unit.infra.compose_file import COMPOSE, INFRA, SERVERS, SERVICES

GPU_WORKERS = sorted(name for name in SERVICES if name.startswith("gpu_worker"))
WORKERS = ["cpu_worker", *GPU_WORKERS]
ONE_SHOT = {"preflight", "storage_preparation", "instance_preparation"}
OWN = [name for name, service in SERVICES.items() if service["image"].startswith("one-to-all")]
NEEDED = {
    "REDIS_PASSWORD": "r1",
    "POSTGRES_PASSWORD": "p1",
    "S3_ACCESS_KEY": "k1",
    "S3_SECRET_KEY": "s1",
    "GPU_WORKERS": "4",
    "MODELS_FOLDER": "/srv/models",
}
# Read by Dagster, not by Settings.
OF_DAGSTER = {"DAGSTER_HOME", DATABASE_VARIABLE}
# Follow from the folders that are mounted, or are of one service alone.
NOT_GIVEN = {"LOG_DIR", "ONE_TO_ALL_PRETRAINED_DIR", "WAN_T2V_14B_DIFFUSERS_DIR", "ONE_TO_ALL_RUNTIME_DIR"}
OF_ONE_SERVICE = {"ONE_TO_ALL_DEVICE", "MINIO_ROOT_USER", "MINIO_ROOT_PASSWORD"}


def test_it_follows_the_compose_specification():
    check_jsonschema = pytest.importorskip("check_jsonschema", reason="ships the schema of the Compose specification")
    import jsonschema

    schema = Path(check_jsonschema.__file__).parent / "builtin_schemas" / "vendor" / "compose-spec.json"
    validator = jsonschema.validators.validator_for(json.loads(schema.read_text()))(json.loads(schema.read_text()))
    assert [error.message for error in validator.iter_errors(COMPOSE)] == []
    broken = {**COMPOSE, "services": {"redis": {"image": "redis", "no_such_key": 1}}}
    assert list(validator.iter_errors(broken)), "the schema must be able to refuse"


def compose_client() -> list[str] | None:
    """The command of an installed Compose client that can read a file without an engine."""
    for command in (["docker", "compose"], ["docker-compose"]):
        try:
            if subprocess.run([*command, "version"], capture_output=True, check=False).returncode == 0:
                return command
        except OSError:
            continue
    return None


def compose_config(**environment: str) -> subprocess.CompletedProcess[str]:
    client = compose_client()
    if client is None:
        pytest.skip("no Compose client is installed")
    return subprocess.run(
        [*client, "--file", str(INFRA / "compose.yaml"), "config", "--format", "json"],
        env={"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/"), **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_compose_client_reads_it():
    done = compose_config(**NEEDED, COMPOSE_PROFILES="postgres,minio,studio,gpus-4")
    assert done.returncode == 0, done.stderr
    services = json.loads(done.stdout)["services"]
    assert set(services) == set(SERVICES)
    assert services["daemon"]["environment"]["REDIS_URL"] == "redis://:r1@redis:6379/0"


@pytest.mark.parametrize("missing", sorted(NEEDED))
def test_a_compose_client_refuses_a_missing_value(missing):
    done = compose_config(**{name: value for name, value in NEEDED.items() if name != missing})
    assert f"required variable {missing} is missing" in done.stderr


def test_every_variable_it_takes_is_explained():
    explained = (INFRA / "compose.env.example").read_text() + (REPOSITORY_ROOT / ".env.example").read_text()
    taken = set(re.findall(r"(?<!\$)\$\{(\w+)", (INFRA / "compose.yaml").read_text()))
    known = {name.upper() for name in Settings.model_fields} | {"DAGSTER_PORT"}
    assert {name for name in taken if name not in explained} <= known
    assert set(re.findall(r"^(?:# )?([A-Z0-9_]+)=", (INFRA / "compose.env.example").read_text(), re.MULTILINE)) <= (
        taken | {"COMPOSE_PROFILES"}
    )


@pytest.mark.parametrize("name", OWN)
def test_every_variable_it_gives_is_a_setting(name):
    known = {field.upper() for field in Settings.model_fields}
    own = {field.upper() for field in StudioSettings.model_fields} if name == "studio" else set()
    given = set(SERVICES[name]["environment"])
    assert given <= known | OF_DAGSTER | own
    assert own - given <= {"STUDIO_PORT"}, "that of the container stays; compose.yaml publishes another one"
    assert known - given <= NOT_GIVEN | OF_ONE_SERVICE, "add NAME: ${NAME:-} to x-environment of compose.yaml"


@pytest.mark.parametrize("name", sorted(SERVICES))
def test_images_are_pinned_and_services_have_health_checks(name):
    service = SERVICES[name]
    if name not in OWN:
        assert re.search(r":(\d+\.\d+(\.\d+)?-|RELEASE\.\d{4}-\d\d-\d\dT)", service["image"]), service["image"]
    if name not in ONE_SHOT:
        assert service["healthcheck"]["test"][0] in {"CMD", "CMD-SHELL"}
        assert service["restart"] == "unless-stopped"


def test_services_wait_for_what_can_tell_that_it_is_ready():
    for name, service in SERVICES.items():
        for other, how in service.get("depends_on", {}).items():
            expected = "service_completed_successfully" if other in ONE_SHOT else "service_healthy"
            assert how["condition"] == expected, name
            same = SERVICES[other].get("profiles") in (None, service.get("profiles"))
            assert same or how["required"] is False


def test_only_the_hosts_own_address_is_published_unless_told_otherwise():
    published = {name: service["ports"] for name, service in SERVICES.items() if "ports" in service}
    assert set(published) == {*SERVERS, "webserver", "studio"}
    for ports in published.values():
        assert all(re.match(r"127\.0\.0\.1:|\$\{FLEET_ADDRESS:-127\.0\.0\.1\}:", port) for port in ports)


def test_one_container_per_gpu():
    devices = []
    for name in GPU_WORKERS:
        (reservation,) = SERVICES[name]["deploy"]["resources"]["reservations"]["devices"]
        assert reservation["driver"] == "nvidia"
        assert reservation["capabilities"] == ["gpu"]
        devices += reservation["device_ids"]
        assert SERVICES[name]["environment"]["ONE_TO_ALL_DEVICE"] == "cuda"
    assert devices == [str(number) for number in range(4)]
    assert all("deploy" not in service for name, service in SERVICES.items() if name not in GPU_WORKERS)


@pytest.mark.parametrize("name", OWN)
def test_every_command_exists(name):
    """The program, its module and its options."""
    for words in (
        SERVICES[name]["command"],
        SERVICES[name].get("healthcheck", {"test": ["CMD", "python", "-c"]})["test"][1:],
    ):
        command = words[2:] if words[0] == "env" else words  # a variable for this command alone
        program = command[0]
        if program == "python":
            assert command[1] in {"-m", "-c"}
            assert command[1] == "-c" or importlib.util.find_spec(command[2])
            continue
        scripts = {
            entry.name
            for package in ("dagster", "dagster-webserver", "one-to-all-pipeline")
            for entry in distribution(package).entry_points
        }
        assert program in scripts
        for option, value in itertools.pairwise(command):
            if option == "--workspace":
                assert (REPOSITORY_ROOT / value).is_file()


@pytest.mark.parametrize("name", sorted(SERVICES))
def test_no_container_fills_the_disk_or_the_memory_of_its_host(name):
    options = SERVICES[name]["logging"]["options"]
    assert options["max-size"].endswith("m")
    assert int(options["max-size"].removesuffix("m")) * int(options["max-file"]) <= 100
    if name not in ONE_SHOT:
        assert "mem_limit" in SERVICES[name]


def test_a_daemon_that_hangs_is_unhealthy_within_minutes():
    """Its threads note a heartbeat every 30 s; Dagster itself would believe it to live for half an hour."""
    check = SERVICES["daemon"]["healthcheck"]["test"]
    assert check[1:] == ["env", "DAGSTER_DAEMON_HEARTBEAT_TOLERANCE=120", "dagster-daemon", "liveness-check"]
    assert HEARTBEAT_SECONDS * 2 < 120


@pytest.mark.parametrize(("age", "status"), [(10, 0), (150, 1)])
def test_the_health_check_of_the_daemon_believes_no_old_heartbeat(age, status, tmp_path, monkeypatch):
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
    (tmp_path / "dagster.yaml").write_text("telemetry: {enabled: false}\n")
    with dg.DagsterInstance.get() as instance:
        for kind in instance.get_required_daemon_types():
            instance.add_daemon_heartbeat(DaemonHeartbeat(time.time() - age, kind, "daemon", []))
    variable = SERVICES["daemon"]["healthcheck"]["test"][2]
    monkeypatch.setenv(*variable.split("="))
    assert CliRunner().invoke(liveness_check_command).exit_code == status


@pytest.mark.parametrize("name", WORKERS)
def test_workers_understand_their_options_and_their_health_check_knows_their_name(name, monkeypatch):
    command, check = SERVICES[name]["command"], SERVICES[name]["healthcheck"]["test"]
    options = worker.argument_parser().parse_args([str(part) for part in command[3:]])
    assert command[2] == worker.__name__
    assert options.queue == (CPU_QUEUE if name == "cpu_worker" else GPU_QUEUE)
    assert options.concurrency == (2 if name == "cpu_worker" else 1)
    assert options.grace < int(SERVICES[name]["stop_grace_period"].removesuffix("s"))
    assert check[3] == worker_health.__name__
    assert check[4] == options.name


def test_code_server_and_workspace_agree():
    command = SERVICES["code_server"]["command"]
    server = yaml.safe_load((INFRA / "workspace.prod.yaml").read_text())["load_from"][0]["grpc_server"]
    assert server == {"host": "code_server", "port": 4266, "location_name": LOCATION_NAME}
    assert command[command.index("--port") + 1] == str(server["port"])
    assert command[command.index("--location-name") + 1] == LOCATION_NAME
    assert command[command.index(CODE_LOCATION[0]) + 1] == CODE_LOCATION[1]
    assert SERVICES["code_server"]["healthcheck"]["test"][-1] == str(server["port"])


def test_the_instance_is_a_production_instance():
    """Database, logs, monitoring, retries, retention and limits; and limits and workers agree."""
    instance = yaml.safe_load((INFRA / "dagster.prod.yaml").read_text())
    assert instance["storage"]["custom"]["config"]["postgres_url"] == {"env": DATABASE_VARIABLE}
    for part in ("run_coordinator", "run_launcher", "compute_logs"):
        module = importlib.import_module(instance[part]["module"])
        assert hasattr(module, instance[part]["class"])
    assert instance["compute_logs"]["config"]["upload_interval"] <= 30
    assert instance["run_monitoring"]["enabled"]
    assert instance["run_retries"] == RUN_RETRIES
    assert {"sensor", "schedule"} <= set(instance["retention"])
    assert instance["concurrency"]["pools"] == {"granularity": "run", "default_limit": 1}
    limits = {limit["key"]: limit for limit in instance["concurrency"]["runs"]["tag_concurrency_limits"]}
    limit = limits["dagster-celery/queue"]
    assert limit["value"] == CPU_QUEUE
    assert limits["dagster/partition"]["value"] == {"applyLimitPerUniqueValue": True}
    assert str(limit["limit"]) == SERVICES["cpu_worker"]["command"][-1]
    assert SERVICES["instance_preparation"]["command"][:4] == [
        "python",
        "-m",
        instance_preparation.__name__,
        "--gpu-workers",
    ]
    definitions = defs.get_repository_def().assets_defs_by_key.values()
    assert GPU_POOL in {definition.op.pool for definition in definitions if definition.is_executable}
