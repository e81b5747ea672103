"""``one-to-all restore`` and ``stop-batch`` on the instance of ``DAGSTER_HOME``."""

import json
from typing import Any

import dagster as dg
import pytest
from typer.testing import CliRunner

from orchestration.command_line import app
from orchestration.partitions import ANIMATION_REQUESTS
from tests.integration.orchestration.daemon import Daemon
from tests.integration.orchestration.small_requests import submit_small, write_small_media

RUNNER = CliRunner()


@pytest.fixture
def accepted(empty_world: Any, tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A world with one accepted request, and a Dagster instance that knows nothing of it."""
    daemon = Daemon(empty_world)
    submit_small(empty_world, write_small_media(tmp_path / "media", 3, audio=False), "dance")
    daemon.scan_inbox()
    home = tmp_path / "home"
    home.mkdir()
    (home / "dagster.yaml").write_text(json.dumps({"telemetry": {"enabled": False}}))
    monkeypatch.setenv("DAGSTER_HOME", str(home))
    return empty_world


def test_restore_reports_first_and_changes_things_with_apply(accepted: Any) -> None:
    looked = RUNNER.invoke(app, ["restore"])
    assert looked.exit_code == 0, looked.output
    assert "1  requests that get their partition back (dance)" in looked.output
    assert "nothing was changed" in looked.output
    with dg.DagsterInstance.get() as instance:
        assert instance.get_dynamic_partitions(str(ANIMATION_REQUESTS.name)) == []
    done = RUNNER.invoke(app, ["restore", "--apply"])
    assert (done.exit_code, done.output.splitlines()[-1]) == (0, "done")
    with dg.DagsterInstance.get() as instance:
        assert instance.get_dynamic_partitions(str(ANIMATION_REQUESTS.name)) == ["dance"]


def test_stopping_a_batch_that_never_was_says_so(accepted: Any) -> None:
    refused = RUNNER.invoke(app, ["stop-batch", "nightly-1999-12-31"])
    assert refused.exit_code == 1
    assert "there is no batch 'nightly-1999-12-31'" in str(refused.exception)
