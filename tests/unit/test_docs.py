"""README and docs name only what is there: links, paths, modules, commands, options, make targets, contracts."""

import re
import shlex
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import typer
from pydantic import BaseModel

from libs.pose.record import PoseRecord
from libs.pose.track import PoseTrack
from libs.provenance.record import ClipOrigin, CodeState, Device, InputFile, ModelFiles, RunRecord
from libs.requests.lifecycle.accepted import AcceptedRequest
from libs.settings import REPOSITORY_ROOT
from libs.stages.clip.sampling import ClipSummary
from libs.stages.review.quality import ClipQuality
from libs.storage.manifest import Manifest, StoredFile
from orchestration.command_line import app
from orchestration.policies import ANIMATIONS_GROUP

PAGES = [
    *(REPOSITORY_ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")),
    *sorted((REPOSITORY_ROOT / "docs").glob("*.md")),
]
FOLDERS = ("libs", "orchestration", "tests", "docs", "infra", "assets", "benchmarks", "third_party", ".ci")

WRITTEN_BY_PEOPLE = {"infra/.env"}
"""Files that a page tells its reader to make."""

_FENCED = re.compile(r"^ *```(\w*)\n(.*?)^ *```", re.MULTILINE | re.DOTALL)
_INLINE = re.compile(r"`([^`\n]+)`")
_PATH = re.compile(rf"(?<![\w./-])(?:{'|'.join(map(re.escape, FOLDERS))})/[\w./*-]*")
_PYTHON_FILE = re.compile(r"(?<![\w./*-])\w+\.py\b")
_MODULE = re.compile(r"(?<![\w./-])(?:libs|orchestration)(?:\.\w+)+")
_LIST = re.compile(r" *(?:[-*]|\d+\.) ")
_TABLE = re.compile(r" *\|")
_END_OF_COMMAND = re.compile(r"\s(?:#|\||&&|;)|$")


def parameters(pages: list[Path]) -> Any:
    return pytest.mark.parametrize("page", pages, ids=lambda page: page.relative_to(REPOSITORY_ROOT).as_posix())


def code_of(page: Path) -> Iterator[str]:
    """The page's lines of code, and its code inside sentences; no diagrams."""
    text = page.read_text()
    for language, block in _FENCED.findall(text):
        if language != "mermaid":
            yield from block.splitlines()
    yield from _INLINE.findall(_FENCED.sub("", text))


def commands_of(page: Path, name: str) -> Iterator[list[str]]:
    """The words behind each ``name`` in the page's code, up to a comment, a pipe or the next command."""
    for line in code_of(page):
        for found in re.finditer(rf"(?:(?<![\w/-])|(?<=bin/)){re.escape(name)} ", line):
            rest = line[found.end() :]
            end = _END_OF_COMMAND.search(rest)
            yield shlex.split(rest[: end.start() if end else None].replace("…", ""))


def headings(page: Path) -> set[str]:
    """Anchors of the page's headings, as GitHub makes them."""
    titles = re.findall(r"^#+ (.+)$", _FENCED.sub("", page.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).strip().replace(" ", "-") for title in titles}


@cache
def python_files() -> frozenset[str]:
    return frozenset(path.name for folder in FOLDERS for path in (REPOSITORY_ROOT / folder).rglob("*.py"))


@parameters(PAGES)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", _FENCED.sub("", page.read_text())):
        path, _, anchor = target.partition("#")
        if not path.startswith(("http://", "https://")):
            linked = (page.parent / path).resolve() if path else page
            assert linked.exists(), f"{target} does not exist"
            assert not anchor or anchor in headings(linked), f"{target}: no such heading"


@parameters(PAGES)
def test_files_that_are_named_exist(page: Path) -> None:
    for code in code_of(page):
        for found in _PATH.findall(code):
            path = found.rstrip(".")
            is_there = any(REPOSITORY_ROOT.glob(path)) if "*" in path else (REPOSITORY_ROOT / path).exists()
            is_example = re.search(r"/[A-Z_]+\b(?!\.md)", path)
            assert is_there or is_example or path in WRITTEN_BY_PEOPLE, f"{path} does not exist"
        for name in _PYTHON_FILE.findall(code):
            assert name in python_files(), f"no file is called {name}"


@parameters(PAGES)
def test_lists_and_tables_follow_an_empty_line(page: Path) -> None:
    """GitHub needs none before a list; the site's Markdown does."""
    lines = _FENCED.sub("```", page.read_text()).splitlines()
    for before, line in pairwise(lines):
        starts = next((start for start in (_LIST, _TABLE) if start.match(line)), None)
        if starts and before.strip() and not starts.match(before) and not (starts is _LIST and before.startswith(" ")):
            raise AssertionError(f"put an empty line before: {line}")


@parameters(PAGES)
def test_modules_that_are_named_exist(page: Path) -> None:
    for code in code_of(page):
        for name in _MODULE.findall(code):
            path = REPOSITORY_ROOT / name.replace(".", "/")
            attribute = path.parent.with_suffix(".py")
            assert (
                path.is_dir()
                or path.with_suffix(".py").is_file()
                or (attribute.is_file() and re.search(rf"\b{path.name}\b", attribute.read_text()))
            ), f"{name} does not exist"


@parameters(PAGES)
def test_commands_exist_with_their_options(page: Path) -> None:
    for words in commands_of(page, "one-to-all"):
        command: Any = typer.main.get_command(app)
        for word in words:
            if not hasattr(command, "commands"):
                break
            assert word in command.commands, f"one-to-all {' '.join(words)}: there is no command {word!r}"
            command = command.commands[word]
        known = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
        used = {word.partition("=")[0] for word in words if word.startswith("--")}
        assert used <= known | {"--help"}, f"one-to-all {' '.join(words)}: unknown options"


@parameters(PAGES)
def test_make_targets_exist(page: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (REPOSITORY_ROOT / "Makefile").read_text(), re.MULTILINE))
    for words in commands_of(page, "make"):
        assert not words or words[0] in targets, f"there is no make {words[0]}"


@parameters(PAGES)
def test_jobs_and_assets_of_dagster_commands_exist(page: Path) -> None:
    from orchestration.definitions import defs

    jobs = {job.name for job in defs.resolve_all_job_defs()}
    assets = {key.to_user_string() for key in defs.resolve_asset_graph().get_all_asset_keys()}
    for words in commands_of(page, "dagster"):
        for option, known in (("-j", jobs), ("--job", jobs), ("--select", assets)):
            if option in words:
                name = words[words.index(option) + 1]
                assert name in known or name.isupper(), f"dagster {' '.join(words)}: there is no {name}"


def test_every_command_is_documented() -> None:
    used = [words for page in PAGES for words in commands_of(page, "one-to-all")]
    root: Any = typer.main.get_command(app)
    for name, command in root.commands.items():
        for shown in [[name, below] for below in getattr(command, "commands", ())] or [[name]]:
            assert any(words[: len(shown)] == shown for words in used), f"no page shows one-to-all {' '.join(shown)}"


def test_every_asset_is_described_with_its_files() -> None:
    from orchestration.definitions import defs

    graph = defs.resolve_asset_graph()
    of_requests = [key for key in graph.materializable_asset_keys if graph.get(key).group_name == ANIMATIONS_GROUP]
    contracts = (REPOSITORY_ROOT / "docs/data-contracts.md").read_text()
    readme = (REPOSITORY_ROOT / "README.md").read_text()
    for key in of_requests:
        assert f"\n| `{key.to_user_string()}` |" in contracts, f"docs/data-contracts.md: which files has {key}?"
    for key in graph.materializable_asset_keys:
        assert f"`{key.to_user_string()}`" in readme, f"README.md does not say what {key} holds"


def test_every_quality_check_is_described_with_its_limit() -> None:
    from orchestration.animations.quality_checks import THRESHOLDS

    page = (REPOSITORY_ROOT / "docs/quality.md").read_text()
    rows = dict(re.findall(r"^\| `(\w+)` \| (.*)$", page, re.MULTILINE))
    assert list(rows) == list(THRESHOLDS)
    for name, threshold in THRESHOLDS.items():
        limit = f"above {threshold.most:g} |" if threshold.most is not None else f"below {threshold.least:g} |"
        assert rows[name].endswith(limit), name


CONTRACTS = {
    "Artifacts and manifests": [Manifest, StoredFile, ClipSummary],
    "Accepted requests": [AcceptedRequest],
    "Pose tracks": [PoseTrack],
    "Pose conditioning": [PoseRecord],
    "Provenance": [ClipOrigin, InputFile, ModelFiles, Device, RunRecord, CodeState],
    "Quality": [ClipQuality],
}
NOT_A_KEY = {"width", "height"}
"""Of a track: stored as ``size``."""


@pytest.mark.parametrize(("section", "contract"), [(name, kind) for name, kinds in CONTRACTS.items() for kind in kinds])
def test_data_contracts_list_every_key(section: str, contract: type) -> None:
    page = (REPOSITORY_ROOT / "docs/data-contracts.md").read_text()
    text = page.partition(f"\n### {section}\n")[2].partition("\n### ")[0]
    if is_dataclass(contract):
        keys = [field.name for field in fields(contract)]
    else:
        assert issubclass(contract, BaseModel)
        keys = list(contract.model_fields)
    missing = [key for key in keys if f"`{key}`" not in text and not (contract is PoseTrack and key in NOT_A_KEY)]
    assert missing == [], f"{contract.__name__}: add to docs/data-contracts.md, {section}"
