"""The golden tests as a program: what a folder must hold, and that the run reports and fails as it promises."""

import json
import math
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from libs.settings import REPOSITORY_ROOT

PLANS = "tests/golden/model/test_plans.py"
TEXT = {"cleaning": ["in words"], "examples": [{"input": "  a\n clown ", "cleaned": "a clown"}]}
LENGTHS = {"MAIN_CHUNK": 17, "OVERLAP_FRAMES": 5, "FINAL_CHUNK_CANDIDATES": [13, 17]}
PLAN = {**LENGTHS, "rows": [[24, [[0, 17], [11, 24]], []], [9, [[0, 17], [-4, 9]], ["negative_start"]]]}
FOLDERS = {
    "some kinds": {"words.json": TEXT, "deeper/lengths.json": PLAN},
    "wrong text": {"words.json": {**TEXT, "examples": [{"input": "a", "cleaned": "b"}]}},
    "wrong plan": {"lengths.json": {**PLAN, "rows": [[24, [[0, 17], [12, 24]], []]]}},
    "broken index": {"words.json": json.dumps(TEXT)[:-5]},
    "nothing known": {"other.json": {"kind": "unknown"}},
}
RUN_EACH = """
import os, sys
import pytest
# what takes seconds to import is imported once, and then there for every folder
import libs.one_to_all.network.transformer

for folder in sys.argv[2:]:
    if os.fork() == 0:
        os.environ["GOLDEN_DIR"] = folder
        output = os.open(f"{folder}.output", os.O_CREAT | os.O_WRONLY)
        os.dup2(output, 1)
        os.dup2(output, 2)
        status = pytest.main([sys.argv[1], "-q", "-p", "no:cacheprovider"])
        sys.stdout.flush()
        os._exit(status)
    print(os.waitstatus_to_exitcode(os.wait()[1]), flush=True)
"""


@dataclass(frozen=True)
class GoldenRun:
    """How the golden tests that need no network ended on one folder."""

    status: int
    output: str


def _write(path: Path, content: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content))


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, GoldenRun]:
    """A run for each of ``FOLDERS``."""
    root = tmp_path_factory.mktemp("golden")
    for folder, files in FOLDERS.items():
        for name, content in files.items():
            _write(root / folder / "model" / name, content)
    done = subprocess.run(
        [sys.executable, "-c", RUN_EACH, PLANS, *(str(root / folder) for folder in FOLDERS)],
        cwd=REPOSITORY_ROOT,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY_ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    statuses = [int(line) for line in done.stdout.split()]
    return {
        folder: GoldenRun(status, (root / f"{folder}.output").read_text())
        for folder, status in zip(FOLDERS, statuses, strict=True)
    }


@pytest.mark.slow
def test_another_folder_with_other_names_and_some_kinds_missing(runs) -> None:
    run = runs["some kinds"]
    assert run.status == 0, run.output
    assert "prompt cleaning: 1 cases run" in run.output
    assert "chunk plan: 1 cases run" in run.output
    assert "absent:  noise schedule, guidance passes" in run.output


@pytest.mark.slow
@pytest.mark.parametrize(
    ("folder", "complaint"),
    [
        ("wrong text", "1 failed"),
        ("wrong plan", "24 frames"),
        ("broken index", "words.json: is no readable JSON"),
        ("nothing known", "this run does not count as passed"),
    ],
)
def test_a_wrong_value_a_broken_index_and_an_empty_folder_fail(runs, folder, complaint) -> None:
    assert runs[folder].status != 0
    assert complaint in runs[folder].output


def test_counts_of_workers_are_added_and_the_largest_error_stays() -> None:
    from golden_folders import GoldenRecord

    found = {"text": {Path("/one"): 3}, "plan": {Path("/one"): 2}}
    first, second, whole = GoldenRecord(found), GoldenRecord(found), GoldenRecord()
    for error in (0.5, 0.25):
        first.add("text", error)
    first.add("plan", float("nan"))
    second.add("text", 0.75)
    second.add("plan", 1.0)
    for record in (first, second):
        whole.add_plain(json.loads(json.dumps(record.as_plain())))
    assert whole.found == found
    assert whole.ran == {"text": 3, "plan": 2}
    assert whole.largest_error["text"] == 0.75
    assert math.isnan(whole.largest_error["plan"]), "a NaN of one worker is not hidden by the number of another"


def test_each_bound_of_a_tolerance_text_is_its_own(monkeypatch) -> None:
    monkeypatch.syspath_prepend(REPOSITORY_ROOT / "tests" / "golden" / "model")
    from golden_model_files import bound

    text = "Require max abs diff <= 2e-4 on latents_after_step, passes and video, <= 1e-5 on derived latents."
    bounds = [bound(text, name, 7.0) for name in ("video", "derived latents", "latents_after_step", "out")]
    assert bounds == [0.0002, 1e-05, 0.0002, 7.0]
