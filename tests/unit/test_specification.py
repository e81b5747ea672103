"""``docs/specification.md``: every citation in code names one of its headings, and none cites by number."""

import re
from pathlib import Path

import pytest

from libs.settings import REPOSITORY_ROOT

PAGE = REPOSITORY_ROOT / "docs/specification.md"
FOLDERS = ("libs", "orchestration", "tests", "benchmarks", "docs")
FEWEST_CITATIONS = 40

_CITATION = re.compile(r"docs/specification\.md(#[\w-]+)?")
_ANCHOR = re.compile(r"(?<![\w/&#.])#([a-z][\w-]*)")
"""Also those at a distance from the page's name: "#precision" in "docs/specification.md#blocks and #precision"."""
_OTHER_SPECIFICATIONS = re.compile(r"RFC|ISO|arXiv")
_BY_NUMBER = re.compile(
    r"golden[\w ]{0,12}\s+specification|specification,\s+(?:sections?\s+)?\d|\bsections?\s+\d", re.IGNORECASE
)


def anchors() -> set[str]:
    """Of the page's headings, as GitHub makes them."""
    text = re.sub(r"^```.*?^```", "", PAGE.read_text(), flags=re.MULTILINE | re.DOTALL)
    titles = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    slugs = [re.sub(r"[^\w\- ]", "", title.lower()).strip().replace(" ", "-") for title in titles]
    assert len(slugs) == len(set(slugs)), "two headings of one name: a citation could mean either"
    return set(slugs)


def files(*suffixes: str) -> list[Path]:
    found = [path for folder in FOLDERS for path in (REPOSITORY_ROOT / folder).rglob("*") if path.suffix in suffixes]
    return sorted(path for path in found if path not in (PAGE, Path(__file__).resolve()))


def unknown_anchors(text: str) -> list[str]:
    """Citations in the text of a module that lead nowhere; the bare page where no heading is named."""
    cited = [found.group(1) or "" for found in _CITATION.finditer(text)]
    if not cited:
        return []
    named = {anchor.removeprefix("#") for anchor in cited} | set(_ANCHOR.findall(text))
    return sorted(named - anchors())


def citations_by_number(text: str) -> list[str]:
    return [
        found.group()
        for found in _BY_NUMBER.finditer(text)
        if not _OTHER_SPECIFICATIONS.search(text[text.rfind("\n", 0, found.start()) + 1 : found.end()])
    ]


def test_every_citation_names_a_heading() -> None:
    count = 0
    for path in files(".py"):
        text = path.read_text()
        count += len(_CITATION.findall(text))
        assert unknown_anchors(text) == [], f"{path}: no such heading in docs/specification.md"
    assert count >= FEWEST_CITATIONS


def test_nothing_cites_a_specification_by_number() -> None:
    for path in files(".py", ".md"):
        assert citations_by_number(path.read_text()) == [], f"{path}: name a heading of docs/specification.md"


@pytest.mark.parametrize(
    ("text", "unknown"),
    [
        ("Source: docs/specification.md#blocks and #precision. Then\nmore.", []),
        ("Source: docs/specification.md#block.", ["block"]),
        ("Source: docs/specification.md#blocks and #precisions.", ["precisions"]),
        ("Source: docs/specification.md.", [""]),
        ("colour = '#ff0000'  # a colour is no citation where the page is not cited", []),
    ],
)
def test_a_wrong_citation_is_noticed(text: str, unknown: list[str]) -> None:
    assert unknown_anchors(text) == unknown


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("Source: golden model specification, section 3.", True),
        ("as it does (golden pose\nspecification, section 1)", True),
        ("(specification, 16.3)", True),
        ("# Drawing (section 11): limb i", True),
        ("ISO 14496-12, section 8.5.2: the matrix", False),
        ("LoRA, arXiv 2106.09685, section 4.1", False),
        ("the Compose specification", False),
    ],
)
def test_a_citation_by_number_is_noticed(text: str, found: bool) -> None:
    assert bool(citations_by_number(text)) is found
