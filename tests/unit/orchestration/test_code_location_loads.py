"""The code location as webserver, daemon and workers load it: as a whole, with the names of all jobs and ops checked.

Building the definitions and running one job of them does not check that.
"""

from orchestration.definitions import build_defs


def test_all_jobs_fit_into_one_repository() -> None:
    names = {job.name for job in build_defs().get_repository_def().get_all_jobs()}
    assert {"prepare_models", "animate"} <= names
