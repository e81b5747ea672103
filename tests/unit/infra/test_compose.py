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
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

import pytest
import yaml

from libs.settings import REPOSITORY_ROOT, Settings
from orchestration.definitions import defs
from orchestration.fleet import worker, worker_health
from orchestration.fleet.fleet_plan import CODE_LOCATION, LOCATION_NAME
from orchestration.fleet.run_coordinator import CPU_QUEUE
from orchestration.policies import GPU_POOL, GPU_QUEUE

INFRA = REPOSITORY_ROOT / "infra"
COMPOSE = yaml.safe_load((INFRA / "compose.yaml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
GPU_WORKERS = sorted(name for name in SERVICES if name.startswith("gpu_worker"))
WORKERS = ["cpu_worker", *GPU_WORKERS]
ONE_SHOT = {"instance_limits"}
OWN = [name for name, service in SERVICES.items() if service["image"].startswith("one-to-all")]
NEEDED = {"REDIS_PASSWORD": "r1", "POSTGRES_PASSWORD": "p1", "GPU_WORKERS": "4", "MODELS_FOLDER": "/srv/models"}
# Read by Dagster, not by Settings.
OF_DAGSTER = {"DAGSTER_HOME", "DAGSTER_POSTGRES_URL"}


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
    for name in ("REDIS_PASSWORD", "POSTGRES_PASSWORD"):
        uses = re.findall(rf"\$\{{{name}[^}}]*\}}", text)
        assert uses
        assert all(use.startswith(f"${{{name}:?") for use in uses), uses
    for name in ("S3_ACCESS_KEY", "S3_SECRET_KEY", "MODEL_HUB_TOKEN"):
        assert re.findall(rf"\$\{{{name}[^}}]*\}}", text) == [f"${{{name}:-}}"]
    example = (INFRA / "compose.env.example").read_text()
    assert re.findall(r"^\w*(?:PASSWORD|KEY|TOKEN)=(.*)$", example, re.MULTILINE) == [""] * 4
    assert "minioadmin" not in text + example


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
    known = {field.upper() for field in Settings.model_fields} | OF_DAGSTER
    assert set(SERVICES[name]["environment"]) <= known


@pytest.mark.parametrize("name", sorted(SERVICES))
def test_images_are_pinned_and_services_have_health_checks(name):
    service = SERVICES[name]
    if name not in OWN:
        assert re.search(r":\d+\.\d+(\.\d+)?-", service["image"]), service["image"]
    if name not in ONE_SHOT:
        assert service["healthcheck"]["test"][0] in {"CMD", "CMD-SHELL"}
        assert service["restart"] == "unless-stopped"


def test_services_wait_for_what_can_tell_that_it_is_ready():
    for name, service in SERVICES.items():
        for other, how in service.get("depends_on", {}).items():
            expected = "service_completed_successfully" if other in ONE_SHOT else "service_healthy"
            assert how["condition"] == expected, name
            assert SERVICES[other].get("profiles") is None or how["required"] is False


def test_only_the_hosts_own_address_is_published_unless_told_otherwise():
    published = {name: service["ports"] for name, service in SERVICES.items() if "ports" in service}
    assert set(published) == {"redis", "postgres", "webserver"}
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
            entry.name for package in ("dagster", "dagster-webserver") for entry in distribution(package).entry_points
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
    server = yaml.safe_load((INFRA / "workspace.fleet.yaml").read_text())["load_from"][0]["grpc_server"]
    assert server == {"host": "code_server", "port": 4266, "location_name": LOCATION_NAME}
    assert command[command.index("--port") + 1] == str(server["port"])
    assert command[command.index("--location-name") + 1] == LOCATION_NAME
    assert command[command.index(CODE_LOCATION[0]) + 1] == CODE_LOCATION[1]
    assert SERVICES["code_server"]["healthcheck"]["test"][-1] == str(server["port"])


def test_the_instance_is_that_of_the_fleet_with_postgres():
    """Both files together are one valid instance, and limits and workers agree."""
    text = (INFRA / "dagster.fleet.yaml").read_text() + (INFRA / "dagster.postgres.yaml").read_text()
    instance = yaml.safe_load(text)
    assert instance["storage"] == {"postgres": {"postgres_url": {"env": "DAGSTER_POSTGRES_URL"}}}
    for part in ("run_coordinator", "run_launcher"):
        module = importlib.import_module(instance[part]["module"])
        assert hasattr(module, instance[part]["class"])
    limits = {limit["key"]: limit for limit in instance["concurrency"]["runs"]["tag_concurrency_limits"]}
    limit = limits["dagster-celery/queue"]
    assert limit["value"] == CPU_QUEUE
    assert limits["dagster/partition"]["value"] == {"applyLimitPerUniqueValue": True}
    assert str(limit["limit"]) == SERVICES["cpu_worker"]["command"][-1]
    assert SERVICES["instance_limits"]["command"][:5] == ["dagster", "instance", "concurrency", "set", GPU_POOL]
    definitions = defs.get_repository_def().assets_defs_by_key.values()
    assert GPU_POOL in {definition.op.pool for definition in definitions if definition.is_executable}


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
