"""What is left of runs' output on this host: removed by its workers, since no other process runs on every host.

A finished capture removes its local files itself; a killed run's stay, and so does what the UI has fetched to show. See
``orchestration.fleet.compute_logs`` for the output in the bucket.
"""

import logging
import threading
import time
from collections.abc import Callable
from pathlib import Path

from libs.settings import Settings, load_settings
from orchestration.fleet.compute_logs import FOLDER

INTERVAL_SECONDS = 6 * 60 * 60.0
_SECONDS_PER_DAY = 24 * 60 * 60

logger = logging.getLogger(__name__)


def remove_old_output(settings: Settings, now: float) -> int:
    """Remove files that nothing wrote to for CHUNK_MAX_AGE_DAYS, and folders that are empty; returns how many files.

    A file that another worker of this host removes meanwhile, or that cannot be removed, is left alone.
    """
    folder: Path = settings.data_dir / FOLDER
    oldest = now - settings.chunk_max_age_days * _SECONDS_PER_DAY
    removed = 0
    for path in sorted(folder.rglob("*"), reverse=True):  # what is below a folder first
        try:
            if path.is_symlink() or path.stat().st_mtime > oldest:
                continue
            if path.is_dir():
                path.rmdir()
            else:
                path.unlink()
                removed += 1
        except OSError:
            continue
    return removed


def keep_removing(wait: Callable[[float], None] = time.sleep) -> None:
    """Remove old output now and every six hours, in a thread."""

    def loop() -> None:
        while True:
            try:
                if removed := remove_old_output(load_settings(), time.time()):
                    logger.info("Removed %d files of old output of runs", removed)
            except Exception:  # settings may be wrong for a while; the worker goes on
                logger.exception("Cannot remove old output of runs")
            wait(INTERVAL_SECONDS)

    threading.Thread(target=loop, name="old-output", daemon=True).start()
