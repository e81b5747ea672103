"""A code location for the tests of the fleet: a GPU asset that keeps a "model" in its process, and a CPU asset.

Each execution appends a line to $FLEET_TEST_DIR/executions.jsonl: what ran where, warm or cold, under which run.
"""

import json
import os
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import dagster as dg

from orchestration.fleet.launching.lost_launches import lost_launches

FOLDER = Path(os.environ["FLEET_TEST_DIR"])
CLIPS = dg.DynamicPartitionsDefinition(name="clips")

_models: dict[str, str] = {}


def note(context: dg.AssetExecutionContext, event: str) -> None:
    line = {
        "asset": context.asset_key.path[-1],
        "clip": context.partition_key if context.has_partition_key else None,
        "event": event,
        "pid": os.getpid(),
        "run": context.run_id,
        "time": time.time(),
        "cuda": os.environ.get("CUDA_VISIBLE_DEVICES"),
        "device": os.environ.get("ONE_TO_ALL_DEVICE"),
    }
    with (FOLDER / "executions.jsonl").open("a") as file:
        file.write(json.dumps(line) + "\n")
    print(f"{line['asset']} {line['clip']}: {event}", flush=True)


class ClipConfig(dg.Config):
    seconds: float = 0.1


def make_clip(context: dg.AssetExecutionContext, seconds: float) -> None:
    note(context, "warm" if "model" in _models else "cold")
    _models.setdefault("model", "loaded")
    if (FOLDER / f"refuse-{context.partition_key}").exists():
        raise dg.Failure("The request names no driver.", allow_retries=False)
    # The first run of a clip whose name starts with `slow` takes its time; what follows a retry or a cancel is quick.
    first = FOLDER / f"seen-{context.partition_key}"
    if context.partition_key.startswith("slow") and not first.exists():
        first.touch()
        seconds = 600
    if context.partition_key.startswith("held"):
        wait_for(FOLDER / f"go-{context.partition_key}")
    if context.partition_key.startswith("chatty") and not first.exists():
        first.touch()
        seconds = 0.1
        talk(context, FOLDER / f"go-{context.partition_key}")
    if context.partition_key.startswith("lost-gpu") and not first.exists():
        first.touch()
        lose_gpu()
    if context.partition_key.startswith("on-gpu"):
        use_gpu()
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        time.sleep(0.05)
    note(context, "done")


def wait_for(file: Path) -> None:
    deadline = time.monotonic() + 600
    while not file.exists() and time.monotonic() < deadline:
        time.sleep(0.05)


def talk(context: dg.AssetExecutionContext, until: Path) -> None:
    """Write events into Dagster's database, as assets do between their lines."""
    deadline = time.monotonic() + 600
    while not until.exists() and time.monotonic() < deadline:
        context.log_event(dg.AssetObservation("talk"))
        time.sleep(0.2)


def lose_gpu(*_: int) -> None:
    """From now on torch's CUDA refuses every call of this process, as it does after an illegal memory access."""
    refusing = {"is_available": lambda: True, "memory_reserved": lambda _: 1, "synchronize": lose_gpu}
    cuda = SimpleNamespace(is_initialized=lambda: True, device_count=lambda: 1, **refusing)
    sys.modules["torch"] = SimpleNamespace(cuda=cuda)  # type: ignore[assignment]
    raise RuntimeError("CUDA error: an illegal memory access was encountered")


def use_gpu() -> None:
    """Fails where CUDA does not answer; with the stand-in for torch of ``test_dead_gpu``."""
    import torch

    torch.ones(1, device="cuda:0").sum().item()


@dg.asset(partitions_def=CLIPS, pool="gpu")
def clip(context: dg.AssetExecutionContext, config: ClipConfig) -> None:
    make_clip(context, config.seconds)


@dg.asset(partitions_def=CLIPS, pool="gpu", retry_policy=dg.RetryPolicy(max_retries=3, delay=60))
def stubborn_clip(context: dg.AssetExecutionContext) -> None:
    """Its retry policy would answer an interrupt with another attempt in a minute."""
    make_clip(context, 0.1)


@dg.asset
def model_files(context: dg.AssetExecutionContext) -> None:
    note(context, "done")


defs = dg.Definitions(
    assets=[clip, stubborn_clip, model_files],
    sensors=[lost_launches],
    executor=dg.in_process_executor,
)
