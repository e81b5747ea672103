"""``infra/compose.yaml`` against the Compose specification and against what this repository really holds.

Nothing is started and no container engine is needed; a Compose client that is installed reads the file, too.
"""

import importlib.util
import itertools
import json
import os
import re
import shlex
import subprocess
import sys
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

import pytest
import yaml

from libs.settings import REPOSITORY_ROOT, Settings
from orchestration.definitions import defs
from orchestration.fleet import preflight as preflight_module
from orchestration.fleet import worker, worker_health
from orchestration.fleet.fleet_plan import CODE_LOCATION, LOCATION_NAME
from orchestration.fleet.preflight import DATABASE_VARIABLE
from orchestration.fleet.run_coordinator import CPU_QUEUE
from orchestration.policies import GPU_POOL, GPU_QUEUE

INFRA = REPOSITORY_ROOT / "infra"
COMPOSE = yaml.safe_load((INFRA / "compose.yaml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
GPU_WORKERS = sorted(name for name in SERVICES if name.startswith("gpu_worker"))
WORKERS = ["cpu_worker", *GPU_WORKERS]
ONE_SHOT = {"preflight", "storage_preparation", "instance_limits"}
SERVERS = {"redis", "postgres", "minio"}
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
    done = compose_config(**NEEDED, COMPOSE_PROFILES="postgres,gpus-4")
    assert done.returncode == 0, done.stderr
    services = json.loads(done.stdout)["services"]
    assert set(services) == set(SERVICES)
    assert services["daemon"]["environment"]["REDIS_URL"] == "redis://:r1@redis:6379/0"


@pytest.mark.parametrize("missing", sorted(NEEDED))
def test_a_compose_client_refuses_a_missing_value(missing):
    done = compose_config(**{name: value for name, value in NEEDED.items() if name != missing})
    assert f"required variable {missing} is missing" in done.stderr


def test_no_secret_has_a_default():
    text = (INFRA / "compose.yaml").read_text()
    for name in ("REDIS_PASSWORD", "POSTGRES_PASSWORD", "S3_ACCESS_KEY", "S3_SECRET_KEY"):
        uses = re.findall(rf"(?<!\$)\$\{{{name}[^}}]*\}}", text)
        assert uses
        assert all(use.startswith(f"${{{name}:?") for use in uses), uses
    # Without the profile minio there is no administrator; the service itself refuses to start without one.
    for name in ("MINIO_ROOT_USER", "MINIO_ROOT_PASSWORD"):
        assert set(re.findall(rf"(?<!\$)\$\{{{name}[^}}]*\}}", text)) == {f"${{{name}:-}}"}
        assert f"$${{{name}:?" in SERVICES["minio"]["command"][0]
    assert re.findall(r"\$\{MODEL_HUB_TOKEN[^}]*\}", text) == ["${MODEL_HUB_TOKEN:-}"]
    example = (INFRA / "compose.env.example").read_text()
    assert re.findall(r"^\w*(?:PASSWORD|SECRET_KEY|TOKEN)=(.*)$", example, re.MULTILINE) == [""] * 4


@pytest.mark.parametrize("path", sorted(INFRA.iterdir()), ids=lambda path: path.name)
def test_no_file_holds_a_password(path: Path):
    """Neither one that everybody knows, nor any value where a secret belongs, nor an address with a password in it."""
    for written in path.read_text().splitlines():
        line = re.sub(r"\$+\{[^}]*\}", "$", written)  # what the environment gives
        secret = re.search(r"(?i)(?:password|secret(?:_key)?|token|requirepass)\s*[:= ]\s*(\S+)", line)
        if secret and not line.lstrip().startswith("#"):
            assert secret.group(1).startswith("$"), written
        assert set(re.findall(r"://[^\s/:@]*:([^\s@]+)@", line)) <= {"$", "password"}, written
        words = set(re.findall(r"[a-z0-9]+", line.casefold()))
        assert not words & {"minioadmin", "minio123", "changeme", "changeit", "passw0rd", "letmein"}, written


def test_the_check_can_fail(tmp_path: Path):
    for line in ("POSTGRES_PASSWORD: hunter2", "REDIS_URL: redis://:hunter2@redis:6379", "S3_SECRET_KEY=hunter2"):
        (tmp_path / "compose.yaml").write_text(line)
        with pytest.raises(AssertionError):
            test_no_file_holds_a_password(tmp_path / "compose.yaml")


def test_all_servers_wait_for_the_check_of_passwords():
    preflight = SERVICES["preflight"]
    assert preflight["command"] == ["python", "-m", preflight_module.__name__]
    assert "profiles" not in preflight
    assert "depends_on" not in preflight
    for name in SERVERS:
        assert SERVICES[name]["depends_on"] == {"preflight": {"condition": "service_completed_successfully"}}
    given = set(preflight["environment"])
    assert {"REDIS_URL", DATABASE_VARIABLE, "S3_SECRET_KEY", "MINIO_ROOT_PASSWORD"} <= given


def test_minio_does_not_start_with_the_password_that_everybody_knows():
    """Its own default, which an empty one would mean; the command is run here as the container's shell runs it."""
    command = SERVICES["minio"]["command"][0].replace("$$", "$").replace("exec minio", "echo minio")
    given = {"MINIO_ROOT_USER": "administrator", "MINIO_ROOT_PASSWORD": "p"}
    for missing in given:
        environment = {name: "" if name == missing else value for name, value in given.items()}
        refused = subprocess.run(
            [*SERVICES["minio"]["entrypoint"], command], env=environment, capture_output=True, text=True, check=False
        )
        assert refused.returncode != 0
        assert f"{missing}: set it in infra/.env" in refused.stderr
    started = subprocess.run(
        [*SERVICES["minio"]["entrypoint"], command], env=given, capture_output=True, text=True, check=True
    )
    assert started.stdout == "minio server /data --console-address :9001\n"


def test_only_the_preparation_and_the_check_know_the_administrator():
    knowing = {name for name, service in SERVICES.items() if "MINIO_ROOT_PASSWORD" in service.get("environment", {})}
    assert knowing == {"minio", "preflight", "storage_preparation"}
    assert SERVICES["storage_preparation"]["command"] == ["one-to-all", "storage", "prepare", "--apply"]
    assert SERVICES["storage_preparation"]["profiles"] == SERVICES["minio"]["profiles"]
    assert SERVICES["instance_limits"]["depends_on"]["storage_preparation"]["required"] is False


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
    given = set(SERVICES[name]["environment"])
    assert given <= known | OF_DAGSTER
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
    assert set(published) == {*SERVERS, "webserver"}
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
    for command in (
        SERVICES[name]["command"],
        SERVICES[name].get("healthcheck", {"test": ["CMD", "python", "-c"]})["test"][1:],
    ):
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


@pytest.mark.parametrize("name", WORKERS)
def test_workers_understand_their_options_and_their_health_check_knows_their_name(name, monkeypatch):
    command, check = SERVICES[name]["command"], SERVICES[name]["healthcheck"]["test"]
    options = worker._parser().parse_args([str(part) for part in command[3:]])
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
    assert instance["storage"] == {"postgres": {"postgres_url": {"env": DATABASE_VARIABLE}}}
    for part in ("run_coordinator", "run_launcher", "compute_logs"):
        module = importlib.import_module(instance[part]["module"])
        assert hasattr(module, instance[part]["class"])
    assert instance["compute_logs"]["config"]["upload_interval"] <= 30
    assert instance["run_monitoring"]["enabled"]
    assert instance["run_retries"] == {"enabled": True, "max_retries": 2, "retry_on_asset_or_op_failure": False}
    assert {"sensor", "schedule"} <= set(instance["retention"])
    assert instance["concurrency"]["pools"] == {"granularity": "run", "default_limit": 1}
    limits = {limit["key"]: limit for limit in instance["concurrency"]["runs"]["tag_concurrency_limits"]}
    limit = limits["dagster-celery/queue"]
    assert limit["value"] == CPU_QUEUE
    assert limits["dagster/partition"]["value"] == {"applyLimitPerUniqueValue": True}
    assert str(limit["limit"]) == SERVICES["cpu_worker"]["command"][-1]
    assert SERVICES["instance_limits"]["command"][:5] == ["dagster", "instance", "concurrency", "set", GPU_POOL]
    definitions = defs.get_repository_def().assets_defs_by_key.values()
    assert GPU_POOL in {definition.op.pool for definition in definitions if definition.is_executable}


def test_the_image_installs_what_production_needs():
    """The line of the Dockerfile that lists the packages, run by a shell."""
    script = re.search(
        r"^RUN (python -c .*?) > /tmp/requirements\.txt", (INFRA / "Dockerfile").read_text(), re.M | re.S
    )
    assert script
    listed = subprocess.run(
        ["sh", "-c", script.group(1).replace("python", shlex.quote(sys.executable), 1)],
        cwd=REPOSITORY_ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()
    assert {"dagster", "boto3", "dagster-postgres", "psycopg2-binary", "minio"} <= set(listed)
    pinned = (REPOSITORY_ROOT / "constraints.txt").read_text().casefold()
    for name in listed:
        plain = re.split(r"[\[<=>]", name)[0].casefold()
        assert f"\n{plain}==" in f"\n{pinned}", name


def test_the_image_copies_what_there_is_and_makes_the_folders_that_are_mounted():
    dockerfile = (INFRA / "Dockerfile").read_text()
    assert COMPOSE["x-process"]["build"]["dockerfile"] == "infra/Dockerfile"
    assert (INFRA / COMPOSE["x-process"]["build"]["context"]).resolve() == REPOSITORY_ROOT
    for line in re.findall(r"^COPY (.*)$", dockerfile, re.MULTILINE):
        for source in shlex.split(line)[:-1]:
            assert (REPOSITORY_ROOT / source).exists(), source
    for source in re.findall(r"infra/[\w.]+", dockerfile):
        assert (REPOSITORY_ROOT / source).exists(), source
    assert re.search(r"^FROM python:3\.11\.\d+-", dockerfile, re.MULTILINE)
    assert re.search(r"^USER (?!root)", dockerfile, re.MULTILINE)
    for volume in COMPOSE["x-process"]["volumes"]:
        folder = volume.rpartition(":")[2]
        made = re.search(r"mkdir -p (.*) \\", dockerfile)
        assert made
        assert folder in made.group(1)
    named = {volume.partition(":")[0] for service in SERVICES.values() for volume in service.get("volumes", [])}
    assert {name for name in named if not name.startswith("$")} == set(COMPOSE["volumes"])
