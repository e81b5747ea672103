"""Denoising on several ranks equals denoising in one process: bit for bit with divided passes, within 1e-4 with split
tokens.

1e-4 is the golden tolerance of a float32 forward. All of it comes from one run of ``denoising_program``.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = Path(__file__).with_name("denoising_program.py")
REPOSITORY_ROOT = Path(__file__).resolve().parents[4]
TOLERANCE = 1e-4

pytestmark = pytest.mark.slow

PLANS = ("guidance:2/4", "guidance:3/4", "context:2/4", "context:3/5", "context:4/4", "guidance:2,context:2/4")
"""With the heads of the network; 3 ranks do not divide 5 heads."""


@pytest.fixture(scope="module")
def results():
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    run = subprocess.run(
        [sys.executable, str(PROGRAM), *PLANS, "guidance:3,context:2/4"],
        cwd=REPOSITORY_ROOT,
        env={**environment, "PYTHONPATH": str(REPOSITORY_ROOT)},
        capture_output=True,
        text=True,
        check=False,
        timeout=1200,
    )
    assert run.returncode == 0, run.stderr[-3000:]
    return {one["plan"]: one for one in map(json.loads, run.stdout.splitlines())}


@pytest.mark.parametrize("plan", ["guidance:2", "guidance:3"])
def test_dividing_passes_changes_no_bit(results, plan):
    assert results[plan]["differences"] == [0, 0, 0, 0]


@pytest.mark.parametrize(
    "plan", ["context:2", "context:3", "context:4", "guidance:2,context:2", "guidance:3,context:2"]
)
def test_splitting_tokens_changes_no_more_than_rounding(results, plan):
    assert max(results[plan]["differences"]) < TOLERANCE


def test_every_rank_makes_its_passes_only(results):
    # A stopped step and two whole ones of 3 passes; 2 steps of 3 passes, 2 of 2, 2 of 1.
    tokens = results["guidance:3"]["tokens"]
    steps_with_pass = [[16] * 3 + [27] * 2, [16] * 3 + [27] * 2 + [15] * 2, [16] * 3 + [27] * 2 + [15] * 2 + [21] * 2]
    assert tokens == steps_with_pass
    assert [len(one) for one in results["guidance:2"]["tokens"]] == [3 + 2 + 2, 2 * 3 + 2 * 2 + 2 + 2]


def test_every_rank_holds_its_tokens_only(results):
    passes = [3 * 3, 2 * 3, 2 * 2, 2]
    shares_of_cases = {
        "context:2": ([8, 8], [14, 13], [8, 7], [11, 10]),
        "context:4": ([4, 4, 4, 4], [7, 7, 7, 6], [4, 4, 4, 3], [6, 5, 5, 5]),
    }
    for plan, shares in shares_of_cases.items():
        for rank, tokens in enumerate(results[plan]["tokens"]):
            assert tokens == [share[rank] for share, count in zip(shares, passes, strict=True) for _ in range(count)]
    assert len(results["guidance:3,context:2"]["tokens"]) == 6
