"""Folders that cannot be written to, for tests that root may run: root is asked to become somebody else."""

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.fuzz_bounds import call_within

_NOBODY = 65534


@contextmanager
def open_folder() -> Iterator[Path]:
    """A temporary folder every user can enter; those of pytest are private."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    try:
        yield folder
    finally:
        make_writable(folder)
        shutil.rmtree(folder)


def make_read_only(folder: Path) -> None:
    """Nobody but root can change anything in ``folder`` from now on."""
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o555 if path.is_dir() else 0o444)


def make_writable(folder: Path) -> None:
    """Undo :func:`make_read_only`."""
    for path in (folder, *folder.rglob("*")):
        if path.is_dir():
            path.chmod(0o755)


def as_another_user(function: Callable[..., Any], *args: Any, home: Path) -> Any:
    """Call ``function`` in a process that is not root's; ``home`` is the one folder it may write to."""
    home.mkdir(exist_ok=True)
    home.chmod(0o777)
    return call_within(600, 3000, _called, function, args, home)


def _called(function: Callable[..., Any], args: tuple[Any, ...], home: Path) -> Any:
    os.environ["HOME"] = str(home)
    if os.geteuid() == 0:
        os.setgroups([])
        os.setgid(_NOBODY)
        os.setuid(_NOBODY)
    return function(*args)
