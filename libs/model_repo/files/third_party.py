"""The state of the upstream checkout below ``third_party/``, which nothing here needs: absent, at the pin, or changed.

`git submodule update --init third_party/One-to-All-Animation` fetches it.
"""

import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from libs.settings import REPOSITORY_ROOT

UPSTREAM_COMMIT = "c6014ff3c811cac23621ff8afdfbe21d18e60e2c"
CHECKOUT = Path("third_party/One-to-All-Animation")

_SHOWN = 10


@dataclass(frozen=True)
class CheckoutState:
    """``changed`` names files that differ from the pinned commit, added ones included; ``commit`` is what is there."""

    state: Literal["absent", "at the pin and clean", "changed"]
    commit: str | None = None
    changed: tuple[str, ...] = ()

    @property
    def is_fine(self) -> bool:
        """False only for a checkout that somebody or something wrote to, or that is at another commit."""
        return self.state != "changed"

    @property
    def message(self) -> str:
        """One sentence for a person."""
        if self.state == "absent":
            return f"{CHECKOUT} is not fetched, and nothing needs it."
        if self.state == "at the pin and clean":
            return f"{CHECKOUT} is at the pinned commit {UPSTREAM_COMMIT[:12]} and unchanged."
        shown = ", ".join(self.changed[:_SHOWN]) + (", …" if len(self.changed) > _SHOWN else "")
        files = f"; changed: {shown}" if self.changed else ""
        return (
            f"{CHECKOUT} is at {self.commit or 'no commit'}, pinned is {UPSTREAM_COMMIT}{files}. Restore it with "
            f"`git submodule update --init --checkout --force {CHECKOUT}` and `git -C {CHECKOUT} clean -dfx`."
        )


def checkout_state(root: Path = REPOSITORY_ROOT) -> CheckoutState:
    """Look at the checkout below ``root``; writes nothing there, not even git's index."""
    folder = root / CHECKOUT
    if not folder.is_dir() or not any(folder.iterdir()):
        return CheckoutState("absent")
    if not (folder / ".git").exists():
        return CheckoutState("changed", changed=tuple(sorted(path.name for path in folder.iterdir())))
    commit = _git(folder, "rev-parse", "HEAD").strip()
    listing = _git(
        folder, "status", "--porcelain=v1", "-z", "--untracked-files=all", "--ignored=matching", "--no-renames"
    )
    changed = tuple(sorted(entry[3:] for entry in listing.split("\0") if entry))
    if commit == UPSTREAM_COMMIT and not changed:
        return CheckoutState("at the pin and clean", commit)
    return CheckoutState("changed", commit or None, changed)


def _git(folder: Path, *arguments: str) -> str:
    """What git says, empty where it refuses. Optional locks are off: a status must not refresh the index file."""
    command = ["git", "--no-optional-locks", "-C", str(folder), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout
