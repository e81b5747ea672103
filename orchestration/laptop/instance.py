"""The Dagster instance of one machine: its home is ``DATA_DIR/dagster_home``, with the repository's dagster.yaml.

``python -m orchestration.laptop.instance`` prepares it and prints its path.
"""

import errno
import fcntl
import os
from pathlib import Path

from libs.errors import SettingsError
from libs.settings import REPOSITORY_ROOT, Settings, is_checkout, load_settings


def require_checkout() -> None:
    """Look whether the files that a local instance needs are there.

    Raises:
        SettingsError: this is an installed package, not a checkout of the repository.
    """
    if not is_checkout():
        raise SettingsError(
            "this is an installed package, and the local instance needs a checkout with its workspace.yaml and "
            "dagster.yaml: clone the repository and run `make demo` there"
        )


def prepare_dagster_home(settings: Settings) -> Path:
    """Create the home if need be and point ``DAGSTER_HOME`` of this process at it; one that is there is left as it is.

    Raises:
        SettingsError: it cannot be created or written.
    """
    configured = os.environ.get("DAGSTER_HOME")
    home = Path(configured).absolute() if configured else settings.data_dir / "dagster_home"
    if configured and home.is_dir():
        os.environ["DAGSTER_HOME"] = str(home)
        return home
    link = home / "dagster.yaml"
    try:
        home.mkdir(parents=True, exist_ok=True)
        if not link.exists():
            link.unlink(missing_ok=True)
            link.symlink_to(REPOSITORY_ROOT / "dagster.yaml")
    except OSError as error:
        raise _unwritable(home, error) from None
    if not os.access(home, os.W_OK):
        raise _unwritable(home, PermissionError(errno.EACCES, os.strerror(errno.EACCES)))
    os.environ["DAGSTER_HOME"] = str(home)
    return home


def create_databases() -> None:
    """Create the databases of ``DAGSTER_HOME`` that are missing, before several processes do so at once.

    Each of webserver, daemon and code server would. On a slow machine two of them note the same step twice, and no
    process can open that database ever after.
    """
    import dagster as dg  # noqa: PLC0415 - printing the home's path stays quick

    dg.DagsterInstance.get().dispose()


def claim_daemon(home: Path) -> int:
    """Make this process the one whose daemon works on the database in ``home``; two would launch what waits twice.

    The claim ends with the process, or when the descriptor is closed. It lasts when the process becomes another program
    (``exec``); children do not inherit it from Python's ``subprocess``.

    Returns:
        The descriptor that holds the claim.

    Raises:
        SettingsError: another process has it.
    """
    try:
        home.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(home / "daemon.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise _unwritable(home, error) from None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise SettingsError(
            f"`make ui` or `make fleet` runs already on {home}: use that one, stop it first, or set another DATA_DIR"
        ) from None
    os.set_inheritable(descriptor, True)
    return descriptor


def _unwritable(home: Path, error: OSError) -> SettingsError:
    return SettingsError(
        f"{home} cannot be written ({error.strerror}): make it writable for this user, or set DATA_DIR to a folder "
        "that is"
    )


if __name__ == "__main__":
    print(prepare_dagster_home(load_settings()))
