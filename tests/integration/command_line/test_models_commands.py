"""The command line on the sandbox's repository: what is printed, exit statuses, and that dry runs change nothing."""

import json
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from libs.command_line.main import main
from libs.model_repo.layout import layout_of
from libs.model_repo.repository_files import LOCK_NAME
from libs.model_repo.variants import VARIANTS
from libs.sandbox.repository import write_sandbox_repository
from libs.settings import Settings

Run = Callable[..., "Done"]


@pytest.fixture(scope="module")
def sandbox_models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    write_sandbox_repository(layout_of("sandbox", Settings(models_dir=folder, data_dir=folder, _env_file=None)))
    return folder


@pytest.fixture
def models(sandbox_models: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(sandbox_models, tmp_path / "models"))


@dataclass(frozen=True)
class Done:
    returncode: int
    stdout: str
    stderr: str


@pytest.fixture
def run(models: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """The console script's function in this process, as a terminal of 200 columns would see it."""
    for name, value in {"MODELS_DIR": models, "DATA_DIR": models.parent, "COLUMNS": 200}.items():
        monkeypatch.setenv(name, str(value))
    monkeypatch.setitem(Settings.model_config, "env_file", None)

    def call(*arguments: str) -> Done:
        monkeypatch.setattr(sys, "argv", ["one-to-all", "models", *arguments])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        output = capsys.readouterr()
        return Done(int(ended.value.code or 0), output.out, output.err)

    return call


def test_lock_verify_damage_verify(run: Run, models: Path) -> None:
    assert run("verify", "sandbox", "--level", "full").returncode == 1
    done = run("verify", "sandbox", "--write-lock", "--level", "full")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "sandbox: complete" in done.stdout
    files = "".join(line.split("│")[1].strip() for line in done.stdout.splitlines() if line.startswith("│"))
    assert "pretrained_models/DWPose/dw-ll_ucoco_384.onnx" in files, "names are broken, never cut"
    shard = sorted((models / "One-to-All-sandbox").glob("model-*.safetensors"))[0]
    content = bytearray(shard.read_bytes())
    content[-1] ^= 1
    shard.write_bytes(content)
    done = run("verify", "sandbox", "--json")
    assert done.returncode == 1
    report = json.loads(done.stdout)
    assert report["state"] == "mismatch"
    assert run("download", "sandbox").returncode == 0
    assert run("verify", "sandbox", "--level", "full").returncode == 0


def test_quantize_makes_a_variant_that_verifies(run: Run, models: Path) -> None:
    assert run("verify", "sandbox", "--write-lock").returncode == 0
    done = run("quantize", "sandbox")
    assert done.returncode == 0, done.stderr
    assert run("verify", "sandbox-fp8", "--level", "full").returncode == 0
    shown = run("status").stdout
    assert all(name in shown for name in VARIANTS), "names are to be copied: they are never cut"


def test_status_shows_the_rest_beside_a_lock_that_cannot_be_read(run: Run, models: Path) -> None:
    assert run("verify", "sandbox", "--write-lock").returncode == 0
    (models / "One-to-All-14b").mkdir()
    (models / "One-to-All-14b" / LOCK_NAME).write_text("{")
    done = run("status")
    assert done.returncode == 1
    assert all(name in done.stdout for name in VARIANTS)
    (row,) = (line for line in done.stdout.splitlines() if line.startswith("│ sandbox "))
    assert "files" in row
    assert f"One-to-All-14b/{LOCK_NAME}: is not a lock file" in done.stdout
    assert "Traceback" not in done.stderr


def test_dry_runs_change_nothing(run: Run, models: Path) -> None:
    folder = models / "One-to-All-sandbox/pretrained_models"
    (wan,) = (path for path in folder.iterdir() if path.name.startswith("Wan"))
    (wan / "transformer").mkdir()
    (wan / "transformer/x.safetensors").write_bytes(bytes(5000))
    stash = models / "One-to-All-Animation/pretrained_models"
    (stash / "DWPose").mkdir(parents=True)
    (stash / "DWPose/another.onnx").write_bytes(b"x")
    before = sorted(models.rglob("*"))
    assert "5,000 bytes" in run("slim", "sandbox").stdout
    assert "would bring pretrained_models/DWPose/another.onnx" in run("migrate", "sandbox").stdout
    assert [path for path in sorted(models.rglob("*")) if not path.name.startswith(".")] == [
        path for path in before if not path.name.startswith(".")
    ]
    assert run("slim", "sandbox", "--apply").returncode == 0
    assert not (wan / "transformer").exists()


def test_an_error_is_one_line(run: Run) -> None:
    done = run("verify", "nothing")
    assert done.returncode == 1
    assert done.stderr.startswith("error: unknown model variant 'nothing'")
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("command", ["download", "migrate", "slim", "verify", "quantize", "status", "delete-stash"])
def test_help_shows_examples(run: Run, command: str) -> None:
    done = run(command, "--help")
    assert done.returncode == 0
    assert f"one-to-all models {command}" in done.stdout


def test_a_mirror_that_is_no_address_is_refused_before_anything_is_fetched(run: Run) -> None:
    done = run("download", "14b", "--endpoint", "hub.example.org")
    assert (done.returncode, done.stderr) == (
        1,
        "error: MODEL_HUB_ENDPOINT='hub.example.org' must be an address such as https://hub.example.org\n",
    )
