"""The table of what is removed says what the jobs do, by settings that exist, and the page for operators agrees."""

from importlib import import_module

import pytest

from libs.housekeeping import REMOVALS, Removal
from libs.settings import REPOSITORY_ROOT, Settings
from orchestration.housekeeping.jobs import HOUSEKEEPING_JOBS

OPS = {f"{job.name}/{node.name}" for job in HOUSEKEEPING_JOBS for node in job.nodes}
PAGE = (REPOSITORY_ROOT / "docs/housekeeping.md").read_text()


@pytest.mark.parametrize("removal", REMOVALS, ids=lambda removal: removal.what)
def test_each_row_names_a_setting_an_op_and_a_module_that_exist(removal: Removal) -> None:
    assert removal.setting in Settings.model_fields
    assert removal.job in OPS
    import_module(removal.code)
    assert removal.setting.upper() in PAGE
    assert f"`{removal.job.partition('/')[0]}`" in PAGE


def test_every_op_that_removes_something_has_a_row() -> None:
    named = {removal.job.partition("/")[2] for removal in REMOVALS}
    assert named == {op.partition("/")[2] for op in OPS}
