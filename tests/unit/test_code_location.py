"""The code location loads light, and the house's import rules hold where import-linter cannot look."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from libs.settings import REPOSITORY_ROOT

HEAVY = ("torch", "diffusers", "transformers", "onnxruntime", "numba")
MAY_BE_HEAVY = ("libs/one_to_all", "libs/pose", "libs/sandbox")


def test_importing_the_code_location_imports_no_heavy_library() -> None:
    code = (
        "import sys, orchestration.definitions as location\n"
        "assert location.defs.resolve_asset_graph().materializable_asset_keys\n"
        f"print([name for name in {HEAVY!r} if name in sys.modules])"
    )
    seen = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert seen.stdout.strip() == "[]"


def _python_files() -> list[Path]:
    return [path for root in ("libs", "orchestration") for path in sorted((REPOSITORY_ROOT / root).rglob("*.py"))]


@pytest.mark.parametrize("path", _python_files(), ids=lambda path: str(path.relative_to(REPOSITORY_ROOT)))
def test_imports_are_absolute_and_heavy_ones_stay_in_their_rooms(path: Path) -> None:
    relative = path.relative_to(REPOSITORY_ROOT).as_posix()
    tree = ast.parse(path.read_text())
    assert not [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.level], "relative import"
    if relative.startswith(MAY_BE_HEAVY):
        return
    for node in tree.body:
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module or ""]
        assert not [name for name in names if name.partition(".")[0] in HEAVY], f"{relative} imports {names} on loading"
