"""No password in any file of ``infra/``, and no server that starts with one that everybody knows."""

import re
import subprocess
from pathlib import Path

import pytest

from orchestration.fleet import preflight as preflight_module
from orchestration.fleet.preflight import DATABASE_VARIABLE
from tests.unit.infra.compose_file import INFRA, SERVERS, SERVICES


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


FILES = sorted(path for path in INFRA.rglob("*") if path.is_file() and "__pycache__" not in path.parts)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
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
    assert SERVICES["instance_preparation"]["depends_on"]["storage_preparation"]["required"] is False
