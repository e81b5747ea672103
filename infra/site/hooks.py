"""mkdocs hooks: pages and pictures from outside ``docs/`` join the site; links written for GitHub are rewritten."""

import logging
import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

REPOSITORY_ROOT = Path(__file__).resolve().parents[2]

PAGES_OUTSIDE_DOCS = {"README.md": "index.md", "CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md"}
"""Path in the repository -> page of the site."""
OTHER_FILES = ("LICENSE", ".env.example")
"""Shown as they are where a page links to them."""
PICTURES = (".png", ".webp", ".svg")

_LOG = logging.getLogger("mkdocs.hooks.local_assets")
_FROM_ELSEWHERE = re.compile(r"<(?:script|link|img|iframe)\b[^>]*(?:src|href)=[\"']?https?://[^\"' >]+")
_LINK = re.compile(r"(\]\()([^)\s#]+)([^)\s]*\))")
_FENCE = re.compile(r"^ *```.*?^ *```", re.MULTILINE | re.DOTALL)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the files that lie outside ``docs/``."""
    pictures = [path for path in (REPOSITORY_ROOT / "assets").rglob("*") if path.suffix in PICTURES]
    added = PAGES_OUTSIDE_DOCS | {path.relative_to(REPOSITORY_ROOT).as_posix(): None for path in pictures}
    added |= dict.fromkeys(OTHER_FILES)
    for source, target in added.items():
        files.append(File.generated(config, target or site_path(source), abs_src_path=str(REPOSITORY_ROOT / source)))
    return files


def on_page_markdown(markdown: str, page: Page, **_: Any) -> str:
    """Rewrite relative links from places in the repository to places in the site; code stays as it is."""
    here = repository_path(page.file.src_uri)
    parts: list[str] = []
    end = 0
    for fence in _FENCE.finditer(markdown):
        parts += [rewritten(markdown[end : fence.start()], here), fence.group()]
        end = fence.end()
    return "".join([*parts, rewritten(markdown[end:], here)])


def on_post_page(output: str, page: Page, **_: Any) -> str:
    """Warn, which fails a strict build, if the page loads anything from another server."""
    for found in _FROM_ELSEWHERE.findall(output):
        _LOG.warning("%s loads from another server: %s", page.file.src_uri, found)
    return output


def rewritten(text: str, here: str) -> str:
    """``text`` of the page at ``here`` in the repository, with links as the site needs them."""
    folder = posixpath.dirname(site_path(here))

    def link(found: re.Match[str]) -> str:
        before, target, after = found.groups()
        if "://" in target:
            return found.group()
        in_repository = posixpath.normpath(posixpath.join(posixpath.dirname(here), target))
        return before + posixpath.relpath(site_path(in_repository), folder or ".") + after

    return _LINK.sub(link, text)


def site_path(in_repository: str) -> str:
    """Where the site has a file of the repository."""
    name = PAGES_OUTSIDE_DOCS.get(in_repository, in_repository.removeprefix("docs/"))
    return f"{name.lstrip('.')}.txt" if in_repository in OTHER_FILES else name


def repository_path(in_site: str) -> str:
    """Where the repository has a page of the site."""
    outside = {page: source for source, page in PAGES_OUTSIDE_DOCS.items()}
    return outside.get(in_site, f"docs/{in_site}")
