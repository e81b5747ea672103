"""Environment -> settings: every variable, relative paths, S3 in halves, secrets that stay secret."""

import itertools
import logging
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from libs.errors import SettingsError
from libs.model_repo.layout import layout_of
from libs.settings import REPOSITORY_ROOT, Settings, load_settings

_NAMES = {name.upper() for name in Settings.model_fields}

S3 = {
    "S3_ENDPOINT": "http://127.0.0.1:9000",
    "S3_ACCESS_KEY": "the-access-key",
    "S3_SECRET_KEY": "the-secret-key",
    "S3_BUCKET_NAME": "clips",
}


@pytest.fixture(autouse=True)
def _empty_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in Settings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.setitem(Settings.model_config, "env_file", None)


def test_defaults_are_the_documented_ones() -> None:
    settings = load_settings()
    pretrained = REPOSITORY_ROOT / "models/One-to-All-14b/pretrained_models"
    assert settings.models_dir == REPOSITORY_ROOT / "models"
    assert settings.data_dir == REPOSITORY_ROOT / "data"
    assert settings.log_dir is None
    assert settings.one_to_all_model_dir == "One-to-All-14b"
    assert settings.one_to_all_pretrained_dir == pretrained
    assert settings.wan_t2v_14b_diffusers_dir == pretrained / "Wan2.1-T2V-14B-Diffusers"
    assert settings.one_to_all_runtime_dir == REPOSITORY_ROOT / "data/one_to_all_animation_runtime"
    assert not settings.uses_s3


@pytest.mark.parametrize(
    ("variable", "value", "expected"),
    [
        ("MODELS_DIR", "/weights", Path("/weights")),
        ("MODELS_DIR", "weights", REPOSITORY_ROOT / "weights"),
        ("DATA_DIR", "/scratch", Path("/scratch")),
        ("LOG_DIR", "logs", REPOSITORY_ROOT / "logs"),
        ("ONE_TO_ALL_MODEL_DIR", "One-to-All-1.3b_1", "One-to-All-1.3b_1"),
        ("ONE_TO_ALL_PRETRAINED_DIR", "/pretrained", Path("/pretrained")),
        ("WAN_T2V_14B_DIFFUSERS_DIR", "/wan", Path("/wan")),
        ("ONE_TO_ALL_RUNTIME_DIR", "run", REPOSITORY_ROOT / "run"),
        ("ONE_TO_ALL_DEVICE", "cuda:1", "cuda:1"),
        ("ONE_TO_ALL_PARALLEL", "guidance:3, context:2", "guidance:3, context:2"),
        ("ONE_TO_ALL_PARALLEL", "context:2", "context:2"),
        ("ONE_TO_ALL_ATTENTION", "cudnn", "cudnn"),
        ("ONE_TO_ALL_COMPILE", "true", True),
        ("ONE_TO_ALL_FP8_COMPUTE", "1", True),
        ("ONE_TO_ALL_MEMORY", "23.5 GB", "23.5 GB"),
        ("ONE_TO_ALL_MEMORY", "offload", "offload"),
        ("ONE_TO_ALL_ALLOW_FP8", "true", True),
        ("S3_REGION", "eu-west-1", "eu-west-1"),
        ("S3_PREFIX", "/team/a/", "team/a"),
        ("S3_CHECKSUMS", "false", False),
        ("NIGHTLY_CRON", "30 22 * * 1-5", "30 22 * * 1-5"),
        ("NIGHTLY_TIMEZONE", "Europe/Berlin", "Europe/Berlin"),
    ],
)
def test_each_variable_is_read(monkeypatch: pytest.MonkeyPatch, variable: str, value: str, expected: object) -> None:
    monkeypatch.setenv(variable, value)
    assert getattr(load_settings(), variable.lower()) == expected


def test_s3_variables_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in S3.items():
        monkeypatch.setenv(name, value)
    settings = load_settings()
    assert settings.uses_s3
    assert settings.s3_endpoint == S3["S3_ENDPOINT"]
    assert settings.s3_bucket_name == "clips"
    assert settings.s3_access_key is not None
    assert settings.s3_access_key.get_secret_value() == "the-access-key"
    assert settings.s3_secret_key is not None
    assert settings.s3_secret_key.get_secret_value() == "the-secret-key"


def test_other_folders_follow_the_ones_they_lie_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODELS_DIR", "/weights")
    monkeypatch.setenv("ONE_TO_ALL_MODEL_DIR", "One-to-All-14b-FP8")
    monkeypatch.setenv("DATA_DIR", "/scratch")
    settings = load_settings()
    assert settings.one_to_all_pretrained_dir == Path("/weights/One-to-All-14b/pretrained_models")
    assert settings.one_to_all_runtime_dir == Path("/scratch/one_to_all_animation_runtime")
    assert settings.artifacts_dir == Path("/scratch/artifacts")


def test_an_empty_variable_counts_as_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODELS_DIR", "")
    monkeypatch.setenv("S3_ENDPOINT", "")
    settings = load_settings()
    assert settings.models_dir == REPOSITORY_ROOT / "models"
    assert not settings.uses_s3


def test_relative_paths_do_not_follow_the_working_directory(tmp_path: Path) -> None:
    code = "from libs.settings import load_settings; s = load_settings(); print(s.models_dir, s.data_dir)"
    environment = {**os.environ, "MODELS_DIR": "weights", "DATA_DIR": "scratch"}
    seen = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
    )
    assert seen.stdout.split() == [str(REPOSITORY_ROOT / "weights"), str(REPOSITORY_ROOT / "scratch")]


def test_an_installed_package_asks_for_absolute_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As `pip install` of a wheel leaves it: the packages, and no workspace.yaml beside them."""
    shutil.copytree(REPOSITORY_ROOT / "libs", tmp_path / "libs", ignore=shutil.ignore_patterns("__pycache__"))
    environment = {key: value for key, value in os.environ.items() if key.upper() not in _NAMES | {"PYTHONPATH"}}

    def run(**more: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "libs.command_line.main", "models", "status"]
        return subprocess.run(
            command, cwd=tmp_path, env=environment | more, capture_output=True, text=True, check=False
        )

    refused = run()
    assert refused.returncode == 1
    assert refused.stderr.startswith("error: MODELS_DIR and DATA_DIR must be set to a folder by its absolute path")
    assert refused.stderr.count("\n") == 1
    assert "error: DATA_DIR must be" in run(MODELS_DIR=str(tmp_path / "models")).stderr
    accepted = run(MODELS_DIR=str(tmp_path / "models"), DATA_DIR=str(tmp_path / "data"))
    assert accepted.returncode == 0, accepted.stderr


def test_a_dotenv_file_is_read_and_the_environment_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dotenv = tmp_path / ".env"
    dotenv.write_text("MODELS_DIR=/from-file\nDATA_DIR=/from-file-too\nUNRELATED=1\n")
    monkeypatch.setitem(Settings.model_config, "env_file", dotenv)
    monkeypatch.setenv("DATA_DIR", "/from-environment")
    settings = load_settings()
    assert settings.models_dir == Path("/from-file")
    assert settings.data_dir == Path("/from-environment")


NEEDED_WITH_ENDPOINT = ["S3_ACCESS_KEY", "S3_SECRET_KEY", "S3_BUCKET_NAME"]


@pytest.mark.parametrize(
    "missing", [set(names) for n in (1, 2, 3) for names in itertools.combinations(NEEDED_WITH_ENDPOINT, n)]
)
def test_half_an_s3_names_exactly_what_is_missing(monkeypatch: pytest.MonkeyPatch, missing: set[str]) -> None:
    for name in set(S3) - missing:
        monkeypatch.setenv(name, S3[name])
    with pytest.raises(SettingsError) as caught:
        load_settings()
    message = str(caught.value)
    assert {name for name in NEEDED_WITH_ENDPOINT if name in message} == missing
    assert "the-access-key" not in message
    assert "the-secret-key" not in message


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("ONE_TO_ALL_DEVICE", "gpu0"),
        ("ONE_TO_ALL_PARALLEL", "3"),
        ("ONE_TO_ALL_PARALLEL", "guidance:0"),
        ("ONE_TO_ALL_PARALLEL", "context:2,context:2"),
        ("ONE_TO_ALL_MEMORY", "24"),
        ("ONE_TO_ALL_MEMORY", "24GB of it"),
        ("ONE_TO_ALL_MEMORY", "everything"),
        ("ONE_TO_ALL_ATTENTION", "sage"),
        ("ONE_TO_ALL_MODEL_DIR", "../elsewhere"),
        ("ONE_TO_ALL_MODEL_DIR", "a/b"),
        ("NIGHTLY_CRON", "daily"),
        ("NIGHTLY_CRON", "0 1 * *"),
        ("NIGHTLY_TIMEZONE", "Mars/Olympus"),
        ("NIGHTLY_TIMEZONE", "/etc/passwd"),
        ("S3_ENDPOINT", "localhost:9000"),
        ("S3_ENDPOINT", "http://minio:port"),
        ("S3_PUBLIC_ENDPOINT", "http://"),
        ("S3_REGION", "eu west"),
        ("S3_PREFIX", "a/../b"),
        ("S3_PREFIX", "a//b"),
        ("DATA_DIR", __file__),
        ("MODELS_DIR", f"{__file__}/models"),
    ],
)
def test_a_wrong_value_names_its_variable(monkeypatch: pytest.MonkeyPatch, variable: str, value: str) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(SettingsError, match=variable):
        load_settings()


@pytest.mark.parametrize("variable", ["S3_ENDPOINT", "S3_PUBLIC_ENDPOINT", "MODEL_HUB_ENDPOINT", "S3_REGION"])
@pytest.mark.parametrize(
    "address",
    [
        "user:SECRET@host",
        "user:SECRET@host:9000",
        "http://user:SECRET@host:9000",
        "https://SECRET@host/",
        "s3://user:SECRET@host",
        "//user:SECRET@host",
        "http://[user:SECRET@host",
        "http://host/SECRET@x",
    ],
)
def test_a_secret_in_an_address_is_refused_without_showing_it(
    monkeypatch: pytest.MonkeyPatch, variable: str, address: str
) -> None:
    monkeypatch.setenv(variable, address)
    with pytest.raises(SettingsError, match=variable) as caught:
        load_settings()
    assert "SECRET" not in str(caught.value).replace("S3_SECRET_KEY", "")


@pytest.mark.parametrize("variable", ["S3_ENDPOINT", "MODEL_HUB_ENDPOINT"])
def test_an_address_with_a_token_in_its_query_is_refused_without_showing_it(
    monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    monkeypatch.setenv(variable, "https://host/path?token=SECRET")
    with pytest.raises(SettingsError, match=variable) as caught:
        load_settings()
    assert "SECRET" not in str(caught.value).replace("S3_SECRET_KEY", "")


def test_blanks_around_a_value_do_not_belong_to_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Secrets that are mounted as files, and lines of shell scripts, often end with one."""
    monkeypatch.setenv("DATA_DIR", " /scratch\t")
    monkeypatch.setenv("MODEL_HUB_TOKEN", "a-token\n")
    for name, value in S3.items():
        monkeypatch.setenv(name, f" {value}\n")
    settings = load_settings()
    assert settings.data_dir == Path("/scratch")
    assert settings.s3_endpoint == S3["S3_ENDPOINT"]
    assert settings.model_hub_token is not None
    assert settings.model_hub_token.get_secret_value() == "a-token"
    assert settings.s3_secret_key is not None
    assert settings.s3_secret_key.get_secret_value() == S3["S3_SECRET_KEY"]
    for name in S3:
        monkeypatch.setenv(name, "  ")
    assert not load_settings().uses_s3


@pytest.mark.parametrize("variable", ["MODEL_HUB_TOKEN", "S3_ACCESS_KEY"])
def test_what_no_header_can_hold_is_refused_without_showing_it(monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    """The clients' own complaints would show it."""
    for name, value in S3.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv(variable, "a-long\nsecret")
    with pytest.raises(SettingsError, match=variable) as caught:
        load_settings()
    assert "a-long" not in str(caught.value)
    assert "secret" not in str(caught.value).lower().replace("s3_secret", "")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"DATA_DIR=/a\nS3_ENDPOINT='http://minio:9000\nMODELS_DIR=/b\n", "line 2: expected NAME=value"),
        (b"DATA_DIR=/a\nsecret words here\n", "line 2: expected NAME=value"),
        ("DATA_DIR=/a".encode("utf-16"), "is not UTF-8 text"),
    ],
)
def test_a_dotenv_file_that_cannot_be_read_is_named_with_its_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes, message: str
) -> None:
    dotenv = tmp_path / ".env"
    monkeypatch.setitem(Settings.model_config, "env_file", dotenv)
    dotenv.write_bytes(b"\xef\xbb\xbf# a comment\n\nexport DATA_DIR=/a # another\nMODELS_DIR='/b c'\nEMPTY=\n")
    assert load_settings().models_dir == Path("/b c")
    dotenv.write_bytes(content)
    with pytest.raises(SettingsError, match=message) as caught:
        load_settings()
    assert str(dotenv) in str(caught.value)
    assert "secret words" not in str(caught.value)


def test_secrets_do_not_show(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    for name, value in S3.items():
        monkeypatch.setenv(name, value)
    settings = load_settings()
    with caplog.at_level(logging.DEBUG):
        logging.getLogger("settings").warning("%s %r %s", settings, settings, settings.model_dump())
    for text in (repr(settings), str(settings), settings.model_dump_json(), caplog.text):
        assert "the-access-key" not in text
        assert "the-secret-key" not in text


def test_the_address_of_redis_is_a_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    assert load_settings().redis_url is None
    monkeypatch.setenv("REDIS_URL", "rediss://:the-password@broker:6379/0")
    settings = load_settings()
    assert settings.redis_url is not None
    assert settings.redis_url.get_secret_value() == "rediss://:the-password@broker:6379/0"
    assert "the-password" not in f"{settings!r} {settings.model_dump_json()}"


def test_a_broker_that_is_not_redis_is_refused_without_showing_its_password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REDIS_URL", "amqp://user:the-password@broker")
    with pytest.raises(SettingsError, match="REDIS_URL must start with redis://") as caught:
        load_settings()
    assert "the-password" not in str(caught.value)


def test_layout_follows_the_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ONE_TO_ALL_PRETRAINED_DIR", "/shared/pretrained")
    monkeypatch.setenv("WAN_T2V_14B_DIFFUSERS_DIR", "/shared/Wan2.1-T2V-14B-Diffusers")
    settings = load_settings()
    chosen = layout_of("14b", settings)
    assert chosen.pretrained == Path("/shared/pretrained")
    assert chosen.wan == Path("/shared/Wan2.1-T2V-14B-Diffusers")
    other = layout_of("1.3b_2", settings)
    assert other.wan == REPOSITORY_ROOT / "models/One-to-All-1.3b_2/pretrained_models/Wan2.1-T2V-1.3B-Diffusers"
