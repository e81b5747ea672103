"""What ``make demo`` makes of a run: an error ends it, a warning does not."""

import io

import dagster as dg
import pytest
from rich.console import Console

from orchestration.demo import explain_failures


def _run(*severities: dg.AssetCheckSeverity, fails: bool = False) -> dg.ExecuteInProcessResult:
    """A run of one asset with one failing check of each severity."""

    @dg.asset(check_specs=[dg.AssetCheckSpec(f"check_{number}", asset="clip") for number in range(len(severities))])
    def clip():
        if fails:
            raise dg.Failure("no room for the clip", allow_retries=False)
        yield dg.MaterializeResult()
        for number, severity in enumerate(severities):
            yield dg.AssetCheckResult(
                check_name=f"check_{number}", passed=False, severity=severity, description="not good"
            )

    job = dg.Definitions(assets=[clip], jobs=[dg.define_asset_job("job")]).resolve_job_def("job")
    with dg.DagsterInstance.ephemeral() as instance:
        return job.execute_in_process(instance=instance, raise_on_error=False)


@pytest.mark.parametrize(
    ("severities", "fails", "done", "shown"),
    [
        ([], False, True, ["0 of 0 checks passed"]),
        ([dg.AssetCheckSeverity.WARN], False, True, ["warning of check check_0 of clip: not good", "passed, 1 warn"]),
        ([dg.AssetCheckSeverity.ERROR], False, False, ["check check_0 of clip: not good", "0 of 1 checks passed"]),
        ([dg.AssetCheckSeverity.WARN, dg.AssetCheckSeverity.ERROR], False, False, ["0 of 2 checks passed, 1 warn"]),
        ([], True, False, ["clip: no room for the clip"]),
    ],
)
def test_only_errors_end_the_demo(severities, fails, done, shown) -> None:
    output = io.StringIO()
    assert explain_failures(Console(file=output, width=200), _run(*severities, fails=fails)) is done
    assert all(text in output.getvalue() for text in shown), output.getvalue()
