"""Which packages a script needs: all that it and the modules of this project behind it import, found by reading them.

What does not belong here: whether they are installed (``parts``).
"""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path


def packages_of(script: Path, roots: tuple[Path, ...]) -> set[str]:
    """Top-level packages, standard library left out, that ``script`` imports; modules below ``roots`` are followed.

    Imports inside functions count only in ``script`` itself and in other benchmarks: elsewhere they are there so that
    what does not need a package need not have it.
    """
    seen: set[Path] = set()
    found: set[str] = set()
    todo = [script]
    while todo:
        path = todo.pop()
        if path in seen:
            continue
        seen.add(path)
        for name in _imports(ast.parse(path.read_text()), whole="benchmarks" in path.parts):
            inside = [place for place in _places(name, roots) if place.is_file()]
            todo += inside[:1]
            top = name.partition(".")[0]
            if not inside and not any((root / top).is_dir() or (root / f"{top}.py").is_file() for root in roots):
                found.add(top)
    return found - set(sys.stdlib_module_names)


def _places(name: str, roots: tuple[Path, ...]) -> Iterator[Path]:
    for root in roots:
        path = root.joinpath(*name.split("."))
        yield path.with_suffix(".py")
        yield path / "__init__.py"


def _imports(tree: ast.Module, *, whole: bool) -> Iterator[str]:
    for node in ast.walk(tree) if whole else _outside_functions(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _outside_functions(tree: ast.AST) -> Iterator[ast.AST]:
    for node in ast.iter_child_nodes(tree):
        yield node
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            continue
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield from _outside_functions(node)
