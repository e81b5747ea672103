"""Which Python `make` takes, and the one sentence where there is none."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from libs.settings import REPOSITORY_ROOT

SCRIPT = REPOSITORY_ROOT / "infra" / "find_python.sh"


def find(*pythons: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = ["sh", str(SCRIPT), *pythons]
    return subprocess.run(command, env={**os.environ, **environment}, capture_output=True, text=True, check=False)


@pytest.fixture
def stand_in(tmp_path: Path):
    """Makes a program that says what it is told to, and answers every question about its version with a status."""

    def make(name: str, *lines: str) -> str:
        program = tmp_path / name
        program.write_text("\n".join(["#!/bin/sh", *lines, ""]))
        program.chmod(0o755)
        return str(program)

    return make


def test_the_first_python_that_can_run_the_project_is_taken(stand_in) -> None:
    too_old = stand_in("python3.10", "exit 1")
    found = find("/nowhere/python", too_old, sys.executable, "/nowhere/other")
    assert (found.returncode, found.stdout.strip()) == (0, sys.executable), found.stderr


def test_without_a_right_python_one_sentence_says_what_to_do(stand_in) -> None:
    found = find("/nowhere/python", stand_in("python3.10", "exit 1"))
    assert found.returncode == 1
    assert found.stdout == ""
    assert "No Python 3.11, 3.12, 3.13 or 3.14 found" in found.stderr
    assert "make PYTHON=/path/to/python3" in found.stderr
    assert found.stderr.count("\n") == 1


def test_a_python_without_venv_says_which_package_has_it(stand_in) -> None:
    bare = stand_in("python3.12", 'case "$2" in *ensurepip*) exit 1;; esac', "exit 0")
    found = find(bare)
    assert found.returncode == 1
    assert "apt-get install python3-venv" in found.stderr
    assert found.stderr.count("\n") == 1


def test_another_system_is_told_what_to_use(stand_in, tmp_path: Path) -> None:
    stand_in("uname", "echo Darwin")
    found = find(sys.executable, PATH=f"{tmp_path}:{os.environ['PATH']}")
    assert found.returncode == 1
    assert "runs on Linux, and this is Darwin" in found.stderr
    assert found.stderr.count("\n") == 1
