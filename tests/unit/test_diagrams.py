"""``assets/diagrams`` is what ``assets/make_diagrams.py`` draws of today's code location."""

import importlib.util
import sys
from types import ModuleType

import pytest

from libs.settings import REPOSITORY_ROOT

SCRIPT = REPOSITORY_ROOT / "assets/make_diagrams.py"


@pytest.fixture(scope="module")
def diagrams() -> ModuleType:
    spec = importlib.util.spec_from_file_location(SCRIPT.stem, SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    try:
        spec.loader.exec_module(module)
    finally:
        del sys.modules[spec.name]
    return module


def test_diagrams_are_current(diagrams: ModuleType) -> None:
    assert {path.stem for path in diagrams.FOLDER.iterdir()} == set(diagrams.DIAGRAMS)
    for name, draw in diagrams.DIAGRAMS.items():
        assert (diagrams.FOLDER / f"{name}.svg").read_text() == draw(), f"{name}.svg is out of date: make diagrams"


def test_every_asset_and_every_edge_is_drawn(diagrams: ModuleType) -> None:
    graph = diagrams.defs.resolve_asset_graph()
    edges = sum(len(graph.get(key).parent_keys) for key in graph.get_all_asset_keys())
    assert set(diagrams.ASSET_PLACES) == {key.to_user_string() for key in graph.get_all_asset_keys()}
    assert diagrams.asset_graph().count('<path class="edge"') == edges
