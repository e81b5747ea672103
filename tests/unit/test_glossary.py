"""``docs/glossary.md``: a term has one row, and a word that is said to be still in the code is."""

import re
from collections import Counter

import pytest

from libs.settings import REPOSITORY_ROOT

GLOSSARY = (REPOSITORY_ROOT / "docs/glossary.md").read_text()
CODE_FOLDERS = ("libs", "orchestration")


def words_still_in_code(page: str) -> list[str]:
    return [
        word
        for remark in re.findall(r"\(in the code still: ([^)]+)\)", page)
        for word in re.findall(r"`(\w+)`", remark)
    ]


@pytest.fixture(scope="module")
def code() -> str:
    return "\n".join(path.read_text() for folder in CODE_FOLDERS for path in (REPOSITORY_ROOT / folder).rglob("*.py"))


@pytest.mark.parametrize("word", words_still_in_code(GLOSSARY))
def test_a_word_said_to_be_in_the_code_is(word: str, code: str) -> None:
    assert re.search(rf"\b{word}\b|_{word}\b", code), f"docs/glossary.md: {word} is gone from the code, drop the remark"


def test_every_term_has_one_row() -> None:
    terms = Counter(re.findall(r"^\| (?!term \|)([^-|][^|]*) \| [^|]+ \|$", GLOSSARY, re.MULTILINE))
    rows = [line for line in GLOSSARY.splitlines() if line.startswith("| ") and not line.startswith("| term |")]
    assert sum(terms.values()) == len(rows), "a row is not 'term | meaning'"
    assert [term for term, count in terms.items() if count > 1] == []
