"""What a fleet on one machine consists of: how many workers on which GPUs, which folders and addresses.

What does not belong here: starting any of it (``local_fleet``).
"""

import shutil
import socket
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from libs.settings import Settings

HOST = "127.0.0.1"
LOCATION_NAME = "one_to_all"
CODE_LOCATION = ("--module-name", "orchestration.definitions")


@dataclass(frozen=True)
class FleetPlan:
    """What to start."""

    folder: Path
    """Holds the Dagster home, Redis's files and the logs of the fleet."""
    storage: Path | None
    """Dagster's database and its runs' logs; None takes those of the production instance: Postgres and the bucket."""
    gpu_workers: int = 1
    gpus: Sequence[str] = ()
    """CUDA_VISIBLE_DEVICES of each GPU worker; those without one see what this process sees."""
    cpu_concurrency: int = 2
    port: int = 3000
    redis_url: str | None = None
    """A Redis that runs already; None starts one."""
    code_location: Sequence[str] = CODE_LOCATION
    """Arguments of ``dagster code-server start`` that name the definitions."""
    environment: Mapping[str, str] = field(default_factory=dict)
    """Added to the environment of every process."""


def plan_for_this_machine(settings: Settings, gpu_workers: int | None, port: int) -> FleetPlan:
    """One worker per GPU of this machine, or one on the CPU; all state below ``DATA_DIR``."""
    gpus = [] if settings.one_to_all_device == "cpu" else _gpus_of_this_machine()
    return FleetPlan(
        folder=settings.data_dir / "fleet",
        storage=settings.data_dir / "dagster_home",
        gpu_workers=gpu_workers or max(len(gpus), 1),
        gpus=gpus,
        port=port,
        redis_url=settings.redis_url.get_secret_value() if settings.redis_url else None,
        code_location=CODE_LOCATION,
    )


def _gpus_of_this_machine() -> list[str]:
    """The indices of the NVIDIA GPUs that ``nvidia-smi`` lists; none without the tool."""
    if shutil.which("nvidia-smi") is None:
        return []
    listed = subprocess.run(
        ["nvidia-smi", "--query-gpu=index", "--format=csv,noheader"], capture_output=True, text=True, check=False
    )
    return listed.stdout.split() if listed.returncode == 0 else []


def free_port() -> int:
    """A TCP port of this machine that nothing listens on right now."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])
