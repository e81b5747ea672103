"""The one command for a GPU: order, limits, going on where it stopped, table; and one part for real, scaled down."""

import json
import os
import subprocess
import sys

import pytest

from libs.settings import REPOSITORY_ROOT

sys.path.append(str(REPOSITORY_ROOT / "benchmarks"))

import on_gpu
from measuring.packages import packages_of
from measuring.parts import Part, run_parts, table
from measuring.record import Figure, Record, read_record

from tests.waiting import is_running, wait_until

explore = pytest.mark.skipif(not os.environ.get("EXPLORE"), reason="half a minute: make explore runs it")
ON_GPU = REPOSITORY_ROOT / "benchmarks" / "on_gpu.py"
_WRITE = """
import sys, time
sys.path.append({benchmarks!r})
from pathlib import Path
from measuring.record import Figure, Record
record = Record(Path(sys.argv[sys.argv.index("--record") + 1]), {{"device": "a test"}})
with open({log!r}, "a") as log:
    log.write({name!r} + "\\n")
{body}
record.finish()
"""


@pytest.fixture
def part(tmp_path):
    """A part whose process runs a few lines of Python; ``ran`` says which parts were begun, in order."""

    def make(name: str, body: str = "", seconds: float = 600.0, **more) -> Part:
        script = tmp_path / f"{name}.py"
        benchmarks, log = str(ON_GPU.parent), str(tmp_path / "log")
        script.write_text(_WRITE.format(benchmarks=benchmarks, log=log, name=name, body=body))
        return Part(name, f"Part {name}", (sys.executable, str(script)), seconds, **more)

    def ran() -> list[str]:
        return (tmp_path / "log").read_text().split() if (tmp_path / "log").exists() else []

    make.ran = ran
    return make


def _run(parts, folder, seconds=6000.0, devices=1):
    return run_parts(parts, folder, seconds, devices, os.environ, say=lambda _: None)


ONE = "record.take('one', lambda: [Figure('a step', 1.5, 's', goal=2.0, at_most=True)])"
TWO = "record.take('two', lambda: [Figure('a share', 0.5, 'share', goal=0.65)])"


def test_parts_run_in_order_and_once(part, tmp_path) -> None:
    parts, out = [part("first", ONE), part("second", TWO)], tmp_path / "out"
    outcome = _run(parts, out)
    assert part.ran() == ["first", "second"]
    assert all(one.startswith("finished in") for one in outcome.values())
    assert _run(parts, out) == {"first": "finished before", "second": "finished before"}
    assert part.ran() == ["first", "second"]
    rows = table(parts, out, outcome).splitlines()
    assert rows[0] == "a test"
    assert rows[-4:] == [
        "| **Part first** | | | |",
        "| a step | 1.5 s | at most 2 s | yes |",
        "| **Part second** | | | |",
        "| a share | 50.0% | at least 65.0% | **no** |",
    ]
    assert (out / "second.md").read_text().splitlines()[-1] == rows[-1]


@pytest.mark.slow
def test_a_part_at_its_limit_keeps_what_it_measured_and_goes_on(part, tmp_path) -> None:
    slow = f"{ONE}\nif not Path({str(tmp_path / 'again')!r}).exists():\n    time.sleep(600)\n{TWO}"
    for seconds in (3.0, 12.0, 48.0, 192.0):  # a busy machine takes a while to start it
        parts, out = [part("slow", slow, seconds=seconds), part("next", TWO)], tmp_path / f"out-{seconds:.0f}"
        (tmp_path / "log").unlink(missing_ok=True)
        outcome = _run(parts, out)
        if (out / "slow.json").exists() and read_record(out / "slow.json")["measured"]:
            break
    assert outcome["slow"].startswith(f"ended after {seconds:.0f} s")
    assert outcome["next"].startswith("finished in")
    assert list(read_record(out / "slow.json")["measured"]) == ["one"]
    assert f"ended after {seconds:.0f} s" in table(parts, out, outcome)
    measured_before = json.loads((out / "slow.json").read_text())["measured"]["one"]
    (tmp_path / "again").touch()
    assert _run(parts, out)["slow"].startswith("finished in")
    content = read_record(out / "slow.json")
    assert list(content["measured"]) == ["one", "two"]
    assert content["measured"]["one"] == measured_before
    assert part.ran() == ["slow", "next", "slow"]


@pytest.mark.slow
def test_what_a_part_started_ends_with_it(part, tmp_path) -> None:
    child = "import subprocess\nprocess = subprocess.Popen(['sleep', '600'])\n"
    child += f"Path({str(tmp_path / 'pid')!r}).write_text(str(process.pid))\ntime.sleep(600)"
    for seconds in (3.0, 12.0, 48.0, 192.0):  # a busy machine takes a while to start it
        _run([part("parent", child, seconds=seconds)], tmp_path / "out")
        if (tmp_path / "pid").exists():
            break
    process = int((tmp_path / "pid").read_text())
    wait_until("it has ended", lambda: not is_running(process))  # a killed process ends when it gets its turn


def test_one_failure_does_not_keep_others_from_being_measured(part, tmp_path) -> None:
    broken = "def broken():\n    yield Figure('half', 1.0)\n    raise RuntimeError('no kernel image')\n"
    broken += f"record.take('broken', broken)\n{ONE}"
    parts, out = [part("mixed", broken), part("crash", "sys.exit(3)"), part("last", TWO)], tmp_path / "out"
    outcome = _run(parts, out)
    assert outcome["mixed"] == "finished, but for what failed; run this again for it"
    assert outcome["crash"].startswith("failed with exit code 3")
    assert outcome["last"].startswith("finished in")
    shown = table(parts, out, outcome)
    assert "| half | 1 | | |" in shown
    assert "| broken | failed: RuntimeError: no kernel image | | |" in shown
    _run(parts, out)
    assert part.ran() == ["mixed", "crash", "last", "mixed", "crash"]


def test_what_cannot_run_here_is_left_out_with_the_reason(part, tmp_path) -> None:
    parts = [part("alone", needs=("no_such_package",)), part("pair", devices=2), part("late", ONE)]
    outcome = _run(parts, tmp_path / "out", seconds=1.0)
    assert outcome == {
        "alone": "left out: needs no_such_package, which is not installed",
        "pair": "left out: needs 2 devices",
        "late": "not begun: no time is left; run this again",
    }
    assert part.ran() == []


def test_a_figure_is_on_disk_before_the_next_is_taken(tmp_path) -> None:
    record = Record(tmp_path / "part.json", {})

    def measure():
        yield Figure("first", 1.0)
        assert "| first | 1 |" in (tmp_path / "part.md").read_text()
        yield Figure("second", 2.0)

    record.take("both", measure)
    assert len(read_record(tmp_path / "part.json")["measured"]["both"]["figures"]) == 2


def test_the_engine_s_parts_need_few_packages() -> None:
    allowed = {"torch", "diffusers", "transformers", "safetensors", "numpy", "pydantic", "pydantic_settings", "yaml"}
    roots = (REPOSITORY_ROOT / "benchmarks", REPOSITORY_ROOT)
    for name in ("agreement", "steps", "variants", "memory", "offload", "load", "approximate", "beside"):
        found = packages_of(roots[0] / "gpu" / f"{name}.py", roots)
        assert "torch" in found
        assert found <= allowed | {"filelock", "dotenv"}, name  # torch and pydantic-settings bring them


def test_a_part_needs_what_it_imports_and_nothing_else() -> None:
    """On a machine without one of these packages the other parts are measured."""
    needs = {part.name: set(part.needs) for part in on_gpu.parts("cuda", small=False)}
    assert all("torch" in names for names in needs.values())
    assert needs["pose_networks"] == {"numpy", "onnx", "onnxruntime", "torch"}
    assert not needs["start"] & {"av", "onnxruntime", "dagster"}
    assert needs["start"] >= {"diffusers", "transformers", "ftfy", "safetensors"}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "least", "with_goal"), [("agreement", 5, 5), pytest.param("offload", 8, 2, marks=explore)]
)
def test_a_real_part_scaled_down(tmp_path, name, least, with_goal) -> None:
    command = [sys.executable, str(ON_GPU), "--device", "cpu", "--small", "--only", name, "--out", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path)
    content = read_record(tmp_path / f"{name}.json")
    assert content["finished"]
    figures = [Figure(**figure) for one in content["measured"].values() for figure in one["figures"]]
    assert len(figures) >= least
    assert [figure.met for figure in figures if figure.goal is not None] == [True] * with_goal
    assert "scaled down" in done.stdout
    assert (tmp_path / "table.md").read_text().strip() in done.stdout
