"""What docstrings say about where something lies is there: modules move, and signposts with them."""

import re

from libs.settings import REPOSITORY_ROOT

FILES = [path for root in ("libs", "orchestration") for path in sorted((REPOSITORY_ROOT / root).rglob("*.py"))]
FULL_NAME = re.compile(r"``((?:libs|orchestration)(?:\.[a-z_0-9]+)+)(?:\.[A-Z]\w*)*``")
SIGNPOST = re.compile(r"\bSee ((?:``[^`]+``[^.`]*)+)")
NEIGHBOUR = re.compile(r"``([a-z][a-z_0-9]+)``")


def _exists(*parts: str) -> bool:
    path = REPOSITORY_ROOT.joinpath(*parts)
    return path.is_dir() or path.with_suffix(".py").is_file()


def _names(name: str) -> bool:
    """True for a module, a package, or a function or variable of a module."""
    *parents, last = name.split(".")
    return _exists(*parents, last) or REPOSITORY_ROOT.joinpath(*parents).with_suffix(".py").is_file()


def test_modules_that_are_named_are_there() -> None:
    """Full names of modules elsewhere, plain ones of neighbours."""
    missing: dict[str, set[str]] = {}
    for path in FILES:
        text = path.read_text()
        wrong = {name for name in FULL_NAME.findall(text) if not _names(name)}
        docstring = text[3 : text.index('"""', 3)] if text.startswith('"""') else ""
        for names in SIGNPOST.findall(docstring):
            here = path.parent.relative_to(REPOSITORY_ROOT).parts
            wrong |= {name for name in NEIGHBOUR.findall(names) if not _exists(*here, name)}
        if wrong:
            missing[path.relative_to(REPOSITORY_ROOT).as_posix()] = wrong
    assert not missing
