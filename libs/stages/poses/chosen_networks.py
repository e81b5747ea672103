"""Which pose networks a request is made with, opened once per process.

What does not belong here: finding key-points with them (``pose_tracks``).
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

from libs.errors import ModelFilesError
from libs.model_repo.hubs.wheel import MEDIAPIPE, check_wheel_files, require_wheel_files
from libs.model_repo.layout import RepositoryLayout, layout_of
from libs.model_repo.variants import VARIANTS
from libs.one_to_all.device import resolve_device
from libs.pose.estimator import BetterEstimator, PoseEstimator
from libs.settings import Settings

_MEDIAPIPE_CODE = "2"
"""Raised where ``libs.pose.mediapipe`` finds other key-points than before."""


@dataclass(frozen=True)
class ChosenNetworks:
    """The networks that look for people in a request's picture and video.

    Attributes:
        name: ``vitpose``, ``mediapipe``, ``sandbox`` or ``sandbox or mediapipe``.
        version: of all their bytes and of the code around them; None where it is not known.
        load: opens them, or gives those that are open already.
        note: what a person should know of the choice.
    """

    name: str
    version: str | None
    load: Callable[[], PoseEstimator]
    note: str | None = None
    found: Callable[[], dict[str, str]] = dict
    """Where two looked: subject -> whose key-points were taken, and both scores. Empty for tracks found earlier."""

    def describe(self) -> dict[str, str]:
        """Name, note and whose key-points were taken, for people."""
        note = {"note on the pose networks": self.note} if self.note else {}
        taken = {f"pose networks of {subject}": words for subject, words in self.found().items()}
        return {"pose networks": self.name, **note, **taken}


def choose_networks(
    choice: str | None, layout: RepositoryLayout, settings: Settings, own_version: str | None
) -> ChosenNetworks:
    """The networks for a request of ``layout``'s variant.

    Args:
        choice: ``auto``, ``vitpose``, ``mediapipe`` or ``sandbox``; None means the variant's own, which is what a
            request from before there was a choice was made with.
        layout: the variant's repository.
        settings: where other networks are, and the device.
        own_version: version of the variant's own pose networks, if they were verified.

    Raises:
        ModelFilesError: the networks asked for are not here; says how to fetch them.
    """
    device = settings.one_to_all_device
    own_name = "sandbox" if _is_sandbox(layout) else "vitpose"
    own = ChosenNetworks(own_name, own_version, lambda: load_estimator(layout, device))
    if choice is None or choice == own_name:
        return own
    if choice == "auto":
        if own_name == "sandbox":
            return _better_for_sandbox(own, settings)
        return own if _has_networks(layout) else _instead_of_own(layout, settings)
    if choice == "mediapipe":
        require_wheel_files(MEDIAPIPE, settings.models_dir)
        return _mediapipe(settings)
    other = _repository_with(choice, settings)
    return ChosenNetworks(choice, None, lambda: load_estimator(other, device))


def networks_on_this_machine(
    choice: str | None, layout: RepositoryLayout, settings: Settings, own_version: str | None
) -> ChosenNetworks:
    """As :func:`choose_networks`, but MediaPipe's stand in for the variant's own where those are not here.

    For people who look at poses on a machine that will not make the clip.

    Raises:
        ModelFilesError: the networks asked for are not here; says how to fetch them.
    """
    if choice not in {None, "auto"} or _has_networks(layout):
        return choose_networks(choice, layout, settings, own_version)
    found = _instead_of_own(layout, settings)
    note = (
        f"{found.note}. A run on a machine that has them would look again: write `pose_networks: {found.name}` into "
        "the request to keep these key-points"
    )
    return replace(found, note=note)


def _instead_of_own(layout: RepositoryLayout, settings: Settings) -> ChosenNetworks:
    """MediaPipe's networks.

    Raises:
        ModelFilesError: they are not here either.
    """
    title = "the sandbox's networks" if _is_sandbox(layout) else "ViTPose's networks"
    if not check_wheel_files(MEDIAPIPE, settings.models_dir, read=False).complete:
        raise ModelFilesError(
            f"{layout.detector}: {title} are not here, and neither are MediaPipe's; fetch one of them: "
            f"`one-to-all models download {layout.variant.name} --part pose_models`, or `{MEDIAPIPE.command}`"
        )
    return _mediapipe(settings, f"{title} are not here, so MediaPipe's looked")


def _better_for_sandbox(own: ChosenNetworks, settings: Settings) -> ChosenNetworks:
    if not check_wheel_files(MEDIAPIPE, settings.models_dir, read=False).complete:
        note = f"only the sandbox's own networks looked; `{MEDIAPIPE.command}` fetches some that know people"
        return replace(own, note=note)
    theirs = _mediapipe(settings)

    @lru_cache(maxsize=1)
    def both() -> BetterEstimator:
        return BetterEstimator((own.name, own.load()), (theirs.name, theirs.load()))

    return ChosenNetworks(
        "sandbox or mediapipe",
        f"{own.version} or {theirs.version}" if own.version else None,
        both,
        "picture and driver were looked at by both, and each has the key-points of those that found more",
        lambda: both().found if both.cache_info().currsize else {},
    )


def load_estimator(layout: RepositoryLayout, device: str) -> PoseEstimator:
    """The pose networks of a repository on ``device`` (a value of ONE_TO_ALL_DEVICE), loaded once per process and file.

    Raises:
        ModelFilesError: a network is missing or is not what it should be.
        DeviceError: the device is not there.
    """
    detector, pose_network = layout.detector, layout.pose_estimator
    for path in (detector, pose_network):
        if not path.is_file():
            raise ModelFilesError(f"{path}: the pose network is missing; verify the model files")
    identity = tuple((path, path.stat().st_mtime_ns) for path in (detector, pose_network))
    return _loaded_estimator(identity, str(resolve_device(device)))


@lru_cache(maxsize=1)
def _loaded_estimator(networks: tuple[tuple[Path, int], tuple[Path, int]], device: str) -> PoseEstimator:
    from libs.pose.networks.estimator import OnnxPoseEstimator  # noqa: PLC0415 - loads onnxruntime

    (detector, _), (pose_network, _) = networks
    return OnnxPoseEstimator(detector, pose_network, device)


def _mediapipe(settings: Settings, note: str | None = None) -> ChosenNetworks:
    folder = MEDIAPIPE.folder(settings.models_dir)
    version = f"{MEDIAPIPE.distribution} {MEDIAPIPE.sha256}, code {_MEDIAPIPE_CODE}"
    return ChosenNetworks(MEDIAPIPE.name, version, lambda: _loaded_mediapipe(folder), note)


@lru_cache(maxsize=1)
def _loaded_mediapipe(folder: Path) -> PoseEstimator:
    from libs.pose.mediapipe.estimator import MediaPipeEstimator  # noqa: PLC0415 - its runtime

    return MediaPipeEstimator(folder)


def _is_sandbox(layout: RepositoryLayout) -> bool:
    return layout.variant.made_by_code or layout.variant.base == "sandbox"


def _has_networks(layout: RepositoryLayout) -> bool:
    return layout.detector.is_file() and layout.pose_estimator.is_file()


def _repository_with(choice: str, settings: Settings) -> RepositoryLayout:
    """The first repository that has the networks of this kind: they are the same in all."""
    wanted = choice == "sandbox"
    for name in VARIANTS:
        layout = layout_of(name, settings)
        if _is_sandbox(layout) == wanted and _has_networks(layout):
            return layout
    variant = "sandbox" if wanted else "14b --part pose_models"
    raise ModelFilesError(f"the pose networks {choice!r} are not here; `one-to-all models download {variant}`")
