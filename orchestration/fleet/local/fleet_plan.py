"""What a fleet on one machine consists of: how many workers on which GPUs, which folders and addresses.

See ``orchestration.fleet.local_fleet`` for starting it.
"""

import shutil
import socket
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from libs.errors import SettingsError
from libs.one_to_all.parallel import ParallelPlan
from libs.one_to_all.parallel.plan import SETTING as PARALLEL_SETTING
from libs.settings import Settings

HOST = "127.0.0.1"
LOCATION_NAME = "one_to_all"
CODE_LOCATION = ("--module-name", "orchestration.definitions")


@dataclass(frozen=True)
class FleetPlan:
    """What to start."""

    folder: Path
    """Holds the Dagster home, Redis's files and, unless they have a place of their own, the logs of the fleet."""
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
    log_dir: Path | None = None
    """Where each process has a log file; ``logs`` below ``folder`` when None."""

    @property
    def logs(self) -> Path:
        """The folder of the log files, one for each process."""
        return self.log_dir or self.folder / "logs"


def plan_for_this_machine(settings: Settings, gpu_workers: int | None, port: int) -> FleetPlan:
    """One worker per GPU of this machine (or per group of GPUs that share a clip), or one on the CPU.

    All state goes below ``DATA_DIR``.

    Raises:
        SettingsError: a clip is to be shared by more GPUs than there are.
    """
    gpus = [] if settings.one_to_all_device == "cpu" else _gpus_of_this_machine()
    gpus = gpus_of_workers(gpus, ParallelPlan.parse(settings.one_to_all_parallel))
    return FleetPlan(
        folder=settings.data_dir / "fleet",
        storage=settings.data_dir / "dagster_home",
        gpu_workers=gpu_workers or max(len(gpus), 1),
        gpus=gpus,
        port=port,
        redis_url=settings.redis_url.get_secret_value() if settings.redis_url else None,
        code_location=CODE_LOCATION,
        log_dir=settings.log_dir,
    )


def gpus_of_workers(gpus: Sequence[str], parallel: ParallelPlan) -> list[str]:
    """``CUDA_VISIBLE_DEVICES`` of each worker: neighbouring GPUs, as many as share a clip; a rest stays unused.

    Raises:
        SettingsError: there are some, but too few for one worker.
    """
    if gpus and len(gpus) < parallel.ranks:
        raise SettingsError(
            f"{PARALLEL_SETTING}={parallel} needs {parallel.ranks} GPUs per worker, and this machine has {len(gpus)}"
        )
    return [
        ",".join(gpus[first : first + parallel.ranks])
        for first in range(0, len(gpus) - parallel.ranks + 1, parallel.ranks)
    ]


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
