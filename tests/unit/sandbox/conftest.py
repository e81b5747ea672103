"""One sandbox repository per test run, and layouts below a folder."""

from pathlib import Path

import pytest

from libs.model_repo.layout import RepositoryLayout
from libs.model_repo.variants import get_variant
from libs.sandbox.repository import write_sandbox_repository


def layout_below(folder: Path) -> RepositoryLayout:
    """The standard layout of the sandbox variant in ``folder``."""
    variant = get_variant("sandbox")
    root = folder / variant.folder
    pretrained = root / "pretrained_models"
    return RepositoryLayout(variant, root, pretrained, pretrained / variant.wan_folder)


@pytest.fixture(scope="session")
def sandbox_layout(tmp_path_factory: pytest.TempPathFactory) -> RepositoryLayout:
    """A written sandbox repository; tests must not change it."""
    layout = layout_below(tmp_path_factory.mktemp("sandbox_models"))
    write_sandbox_repository(layout)
    return layout


@pytest.fixture
def empty_layout(tmp_path: Path) -> RepositoryLayout:
    """Where a sandbox repository could be written."""
    return layout_below(tmp_path)
