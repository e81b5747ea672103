"""``infra/Dockerfile``: what it copies and installs is there. The image itself is not built."""

import re
import shlex
import subprocess
import sys

from libs.settings import REPOSITORY_ROOT
from tests.unit.infra.compose_file import COMPOSE, INFRA, SERVICES


def test_the_image_installs_what_production_needs():
    """The line of the Dockerfile that lists the packages, run by a shell."""
    script = re.search(
        r"^RUN (python -c .*?) > /tmp/requirements\.txt", (INFRA / "Dockerfile").read_text(), re.M | re.S
    )
    assert script
    listed = subprocess.run(
        ["sh", "-c", script.group(1).replace("python", shlex.quote(sys.executable), 1)],
        cwd=REPOSITORY_ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()
    assert {"dagster", "boto3", "dagster-postgres", "psycopg2-binary", "minio"} <= set(listed)
    pinned = (REPOSITORY_ROOT / "constraints.txt").read_text().casefold()
    for name in listed:
        plain = re.split(r"[\[<=>]", name)[0].casefold()
        assert f"\n{plain}==" in f"\n{pinned}", name


def test_the_image_has_the_compiler_that_triton_needs():
    packages = re.search(r"apt-get install (.*?) &&", (INFRA / "Dockerfile").read_text())
    assert packages
    assert {"gcc", "libc6-dev"} <= set(packages.group(1).split())


def test_the_image_copies_what_there_is_and_makes_the_folders_that_are_mounted():
    dockerfile = (INFRA / "Dockerfile").read_text()
    assert COMPOSE["x-process"]["build"]["dockerfile"] == "infra/Dockerfile"
    assert (INFRA / COMPOSE["x-process"]["build"]["context"]).resolve() == REPOSITORY_ROOT
    for line in re.findall(r"^COPY (.*)$", dockerfile, re.MULTILINE):
        for source in shlex.split(line)[:-1]:
            assert (REPOSITORY_ROOT / source).exists(), source
    for source in re.findall(r"infra/[\w.]+", dockerfile):
        assert (REPOSITORY_ROOT / source).exists(), source
    assert re.search(r"^FROM python:3\.11\.\d+-", dockerfile, re.MULTILINE)
    assert re.search(r"^USER (?!root)", dockerfile, re.MULTILINE)
    for volume in COMPOSE["x-process"]["volumes"]:
        folder = volume.rpartition(":")[2]
        made = re.search(r"mkdir -p (.*) \\", dockerfile)
        assert made
        assert folder in made.group(1)
    named = {volume.partition(":")[0] for service in SERVICES.values() for volume in service.get("volumes", [])}
    assert {name for name in named if not name.startswith("$")} == set(COMPOSE["volumes"])
