"""The words of the page: a catalogue for each language, English where a word is missing.

A new language is one more file in ``texts/``; the tests compare its keys with the English ones.
"""

import json
from functools import cache
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).with_name("texts")
DEFAULT = "en"


@cache
def languages() -> dict[str, str]:
    """Code -> its own name, of all catalogues there are."""
    return {path.stem: catalogue(path.stem)["language"] for path in sorted(FOLDER.glob("*.json"))}


@cache
def catalogue(language: str) -> dict[str, str]:
    """Key -> text of one language."""
    return dict(json.loads((FOLDER / f"{language}.json").read_text(encoding="utf-8")))


def chosen(cookie: str | None, accepted: str) -> str:
    """The language of a page: that of the cookie, or the first of an ``Accept-Language`` header that there is."""
    if cookie in languages():
        return str(cookie)
    for part in accepted.split(","):
        code = part.partition(";")[0].strip().lower().partition("-")[0]
        if code in languages():
            return code
    return DEFAULT


class Texts:
    """The texts of one language; called with a key and what its blanks hold."""

    def __init__(self, language: str) -> None:
        self.language = language
        self._texts = {**catalogue(DEFAULT), **catalogue(language)}

    def __call__(self, key: str, **values: Any) -> str:
        """The text of ``key``; the key's last part in words where there is none."""
        text = self._texts.get(key) or key.rpartition(".")[2].replace("_", " ")
        return text.format(**values) if values else text

    def of_page(self) -> dict[str, str]:
        """Those that the page's own scripts say."""
        return {key.removeprefix("js."): text for key, text in self._texts.items() if key.startswith("js.")}
