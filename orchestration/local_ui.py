"""``make ui``: webserver and daemon on this machine, bound to localhost, on the same state as ``make demo``.

Dagster's UI has no login; put a proxy before it before it leaves localhost. What does not belong here: production.
"""

import os
import sys
from pathlib import Path

from libs.settings import REPOSITORY_ROOT, load_settings
from orchestration.local_instance import prepare_dagster_home

HOST = "127.0.0.1"
PORT = "3000"


def main() -> None:
    """Replace this process by ``dagster dev``; ``DAGSTER_PORT`` chooses another port."""
    prepare_dagster_home(load_settings())
    port = os.environ.get("DAGSTER_PORT", PORT)
    dagster = Path(sys.executable).with_name("dagster")
    workspace = REPOSITORY_ROOT / "workspace.yaml"
    print(f"Dagster UI: http://{HOST}:{port}  (Ctrl-C stops it)", flush=True)
    os.chdir(REPOSITORY_ROOT)
    os.execv(dagster, [str(dagster), "dev", "-w", str(workspace), "-h", HOST, "-p", port])


if __name__ == "__main__":
    main()
