"""The console script ``one-to-all``: the commands of ``libs.command_line``, with Dagster's instance behind them."""

import os
import warnings
from pathlib import Path

from libs.command_line import main as command_line
from libs.command_line.requests.runs import RunsOrReason, provided_runs
from libs.settings import load_settings
from orchestration.recovery import commands as recovery

app = command_line.app
recovery.add_to(app)


def main() -> None:
    """Entry point; commands that ask for runs ask the instance of ``DAGSTER_HOME``, or that of this machine."""
    with provided_runs(_instance_runs):
        command_line.main()


def _instance_runs() -> RunsOrReason:
    home = Path(os.environ.get("DAGSTER_HOME") or load_settings().data_dir / "dagster_home")
    if not (home / "dagster.yaml").is_file():
        return RunsOrReason(None, f"{home} has no dagster.yaml: set DAGSTER_HOME, or start `make ui` once")
    os.environ["DAGSTER_HOME"] = str(home)
    warnings.simplefilter("ignore")
    import dagster as dg  # noqa: PLC0415 - takes a second, and most commands do not need it

    from orchestration.requests.control import InstanceRuns  # noqa: PLC0415

    try:
        runs = InstanceRuns(dg.DagsterInstance.get())
        runs.require_database()
    except Exception as error:  # a database that is away, a configuration that cannot be read
        return RunsOrReason(None, f"its database does not answer ({(str(error).splitlines() or [''])[0][:200]})")
    return RunsOrReason(runs)


if __name__ == "__main__":
    main()
