"""The Dagster instance of one machine: its home is ``DATA_DIR/dagster_home``, with the repository's dagster.yaml.

``python -m orchestration.local_instance`` prepares it and prints its path. What does not belong here: production
instances, which bring their own ``DAGSTER_HOME``.
"""

import fcntl
import os
from pathlib import Path

from libs.errors import SettingsError
from libs.settings import REPOSITORY_ROOT, Settings, load_settings


def prepare_dagster_home(settings: Settings) -> Path:
    """Create the home if need be and point ``DAGSTER_HOME`` of this process at it; one already set is respected."""
    configured = os.environ.get("DAGSTER_HOME")
    if configured:
        return Path(configured)
    home = settings.data_dir / "dagster_home"
    home.mkdir(parents=True, exist_ok=True)
    link = home / "dagster.yaml"
    if not link.exists():
        link.unlink(missing_ok=True)
        link.symlink_to(REPOSITORY_ROOT / "dagster.yaml")
    os.environ["DAGSTER_HOME"] = str(home)
    return home


def claim_daemon(home: Path) -> int:
    """Make this process the one whose daemon works on the database in ``home``; two would launch what waits twice.

    The claim ends with the process, or when the descriptor is closed. It lasts when the process becomes another program
    (``exec``); children do not inherit it from Python's ``subprocess``.

    Returns:
        The descriptor that holds the claim.

    Raises:
        SettingsError: another process has it.
    """
    home.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(home / "daemon.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise SettingsError(
            f"`make ui` or `make fleet` runs already on {home}: use that one, stop it first, or set another DATA_DIR"
        ) from None
    os.set_inheritable(descriptor, True)
    return descriptor


if __name__ == "__main__":
    print(prepare_dagster_home(load_settings()))
