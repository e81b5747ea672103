"""The Dagster instance of one machine: its home is ``DATA_DIR/dagster_home``, with the repository's dagster.yaml.

``python -m orchestration.local_instance`` prepares it and prints its path. What does not belong here: production
instances, which bring their own ``DAGSTER_HOME``.
"""

import os
from pathlib import Path

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


if __name__ == "__main__":
    print(prepare_dagster_home(load_settings()))
