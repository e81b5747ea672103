"""``make docs``: a site of pages inside and outside ``docs/``, and what fails its build."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from libs.settings import REPOSITORY_ROOT


def build(root: Path) -> subprocess.CompletedProcess[str]:
    """Build the site of ``root`` with the arguments that the Makefile gives to mkdocs."""
    found = re.search(r"^\t.*/mkdocs (build.*)$", (REPOSITORY_ROOT / "Makefile").read_text(), re.MULTILINE)
    assert found is not None, "make docs does not call mkdocs"
    command = [sys.executable, "-m", "mkdocs", *found.group(1).split()]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    return subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, check=False)


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A small repository with this one's configuration."""
    configuration = (REPOSITORY_ROOT / "mkdocs.yml").read_text().partition("\nnav:\n")[0]
    (tmp_path / "mkdocs.yml").write_text(f"{configuration}\nnav: [index.md, contributing.md, changelog.md, page.md]\n")
    shutil.copytree(REPOSITORY_ROOT / "infra/site", tmp_path / "infra/site")
    (tmp_path / "docs").mkdir()
    (tmp_path / "assets").mkdir()
    (tmp_path / "assets/picture.svg").write_text("<svg xmlns='http://www.w3.org/2000/svg'/>")
    (tmp_path / "README.md").write_text("# Home\n\n[a page](docs/page.md#part) [licence](LICENSE)\n")
    (tmp_path / "docs/page.md").write_text(
        "# Page\n\n## Part\n\n![picture](../assets/picture.svg) [home](../README.md)\n"
    )
    for name in ("CONTRIBUTING.md", "CHANGELOG.md", "LICENSE", ".env.example"):
        (tmp_path / name).write_text(f"# {name}\n")
    return tmp_path


@pytest.mark.slow
def test_links_of_the_repository_work_in_the_site(repository: Path) -> None:
    done = build(repository)
    assert done.returncode == 0, done.stderr
    home = (repository / "build/site/index.html").read_text()
    assert 'href="page.html#part"' in home
    assert 'href="LICENSE.txt"' in home
    page = (repository / "build/site/page.html").read_text()
    assert 'src="assets/picture.svg"' in page
    assert (repository / "build/site/assets/picture.svg").is_file()
    assert not re.search(r"<(?:script|link)[^>]+https?://", home), "everything the page loads is local"


@pytest.mark.slow
def test_broken_pages_fail_the_build(repository: Path) -> None:
    with (repository / "docs/page.md").open("a") as page:
        page.write("\n[gone](gone.md) [no part](page.md#gone) <script src='https://cdn.example.org/x.js'></script>\n")
    (repository / "docs/outside.md").write_text("# In no menu\n")
    done = build(repository)
    assert done.returncode != 0
    for complaint in ("'gone.md'", "'page.md#gone'", "outside.md", "loads from another server"):
        assert complaint in done.stderr, complaint
