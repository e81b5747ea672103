"""The golden tests as a program: what a folder must hold, and that the run reports and fails as it promises."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from libs.settings import REPOSITORY_ROOT

PLANS = "tests/golden/model/test_plans.py"
TEXT = {"cleaning": ["in words"], "examples": [{"input": "  a\n clown ", "cleaned": "a clown"}]}
LENGTHS = {"MAIN_CHUNK": 17, "OVERLAP_FRAMES": 5, "FINAL_CHUNK_CANDIDATES": [13, 17]}
PLAN = {**LENGTHS, "rows": [[24, [[0, 17], [11, 24]], []], [9, [[0, 17], [-4, 9]], ["negative_start"]]]}


def _run(folder: Path) -> tuple[int, str]:
    """Exit status and output of the golden tests that need no network, on ``folder``."""
    done = subprocess.run(
        [sys.executable, "-m", "pytest", PLANS, "-q", "-p", "no:cacheprovider"],
        cwd=REPOSITORY_ROOT,
        env={**os.environ, "GOLDEN_DIR": str(folder)},
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


def _write(path: Path, content: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content))


@pytest.mark.slow
def test_another_folder_with_other_names_and_some_kinds_missing(tmp_path) -> None:
    _write(tmp_path / "model" / "words.json", TEXT)
    _write(tmp_path / "model" / "deeper" / "lengths.json", PLAN)
    status, output = _run(tmp_path)
    assert status == 0, output
    assert "prompt cleaning: 1 cases run" in output
    assert "chunk plan: 1 cases run" in output
    assert "absent:  noise schedule, guidance passes" in output


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "content", "complaint"),
    [
        ("model/words.json", {**TEXT, "examples": [{"input": "a", "cleaned": "b"}]}, "1 failed"),
        ("model/lengths.json", {**PLAN, "rows": [[24, [[0, 17], [12, 24]], []]]}, "24 frames"),
        ("model/words.json", json.dumps(TEXT)[:-5], "words.json: is no readable JSON"),
        ("model/other.json", {"kind": "unknown"}, "this run does not count as passed"),
    ],
    ids=["wrong text", "wrong plan", "broken index", "nothing known"],
)
def test_a_wrong_value_a_broken_index_and_an_empty_folder_fail(tmp_path, name, content, complaint) -> None:
    _write(tmp_path / name, content)
    status, output = _run(tmp_path)
    assert status != 0
    assert complaint in output


@pytest.mark.slow
def test_each_bound_of_a_tolerance_text_is_its_own() -> None:
    """A program of its own, because the golden helpers are importable in the golden folder only."""
    text = "Require max abs diff <= 2e-4 on latents_after_step, passes and video, <= 1e-5 on derived latents."
    code = (
        "import sys; sys.path[:0] = ['tests/golden', 'tests/golden/model']\n"
        "from golden_model_files import bound\n"
        f"print([bound({text!r}, name, 7.0) for name in ('video', 'derived latents', 'latents_after_step', 'out')])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY_ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[0.0002, 1e-05, 0.0002, 7.0]"
