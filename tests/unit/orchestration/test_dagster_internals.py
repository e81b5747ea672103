"""What is used of Dagster without a public name stands in one module, checked with one release."""

import re

import dagster as dg
import pytest

from libs.settings import REPOSITORY_ROOT
from orchestration import dagster_internals

MODULE = "orchestration/dagster_internals.py"
PRIVATE_IMPORT = re.compile(r"^\s*(from|import) dagster\._", re.MULTILINE)


def test_they_were_checked_with_the_release_that_is_installed() -> None:
    assert dg.__version__ == dagster_internals.CHECKED_WITH, (
        f"{MODULE} was checked with Dagster {dagster_internals.CHECKED_WITH}, and {dg.__version__} is installed. Read "
        "Dagster's changes of the interfaces listed there, run tests/unit/orchestration, tests/unit/fleet and "
        "tests/integration/orchestration, and then write the new release into CHECKED_WITH."
    )


def test_the_constraints_pin_that_release() -> None:
    pinned = re.search(r"^dagster==(\S+)", (REPOSITORY_ROOT / "constraints.txt").read_text(), re.MULTILINE)
    assert pinned is not None
    assert pinned[1] == dagster_internals.CHECKED_WITH


@pytest.mark.parametrize("name", dagster_internals.__all__)
def test_each_can_be_imported(name: str) -> None:
    assert getattr(dagster_internals, name) is not None


def test_a_name_that_is_not_listed_is_refused() -> None:
    with pytest.raises(AttributeError, match="no_such_interface"):
        dagster_internals.no_such_interface  # noqa: B018


def test_no_other_module_imports_private_modules_of_dagster() -> None:
    files = [path for root in ("libs", "orchestration") for path in (REPOSITORY_ROOT / root).rglob("*.py")]
    found = {path.relative_to(REPOSITORY_ROOT).as_posix() for path in files if PRIVATE_IMPORT.search(path.read_text())}
    assert found == {MODULE}
