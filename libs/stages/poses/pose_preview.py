"""The poses of a request, made on this machine before anybody asks a fleet for the clip.

The same functions that a run calls find, fit and draw them (``pose_tracks``, ``pose_conditioning``), so what is shown
is what the clip would be conditioned on. Beyond a run's preview there is a sheet of all four ways to fit them.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import product
from pathlib import Path, PurePosixPath
from shutil import copyfile
from tempfile import TemporaryDirectory
from typing import get_args

import numpy as np

from libs.errors import InputError, PoseError
from libs.media.pictures.image import read_image, write_png
from libs.media.previews.contact_sheet import contact_sheet
from libs.media.previews.frame_selection import evenly_spaced_indices
from libs.model_repo.layout import layout_of
from libs.pose.conditioning import PoseConditioning, prepare_conditioning
from libs.pose.options import Mode, PoseOptions
from libs.pose.track import PoseTrack
from libs.progress import Progress
from libs.requests.documents.animation_request import POSE_OPTION_FIELDS, ResolvedRequest
from libs.settings import Settings
from libs.stages.animation_files import DRIVER_TRACK, POSE_TRACKS_CODE, PREVIEW_FILE, REFERENCE_TRACK
from libs.stages.model_verification import verified_versions
from libs.stages.poses.chosen_networks import ChosenNetworks, networks_on_this_machine
from libs.stages.poses.found_poses import FoundPoses
from libs.stages.poses.handed_in_poses import write_poses
from libs.stages.poses.pose_conditioning import (
    ConditionedPoses,
    RequestedPoseOptions,
    condition_poses,
    framed_driver,
    size_of_clip,
)
from libs.stages.poses.pose_tracks import TrackedPoses, TrackSources, sources_of, track_poses
from libs.stages.poses.shared_pose_tracks import SharedPoseTracks, TrackSource
from libs.stages.request.request_media import MediaSource, RequestMedia, fetch_request_media
from libs.storage.artifacts import ArtifactStore
from libs.storage.backends.sha256 import sha256_of_file

_COLUMNS = 6
_DIMMED = 0.4
"""Of the picture behind a drawn pose."""


class LocalMedia:
    """The media of requests among files of this machine; what is not there is looked for in ``otherwise``."""

    def __init__(self, files: Mapping[str, Path], otherwise: MediaSource) -> None:
        self._files, self._otherwise = files, otherwise

    def fetch_media(self, field: str, path: str, destination: Path) -> Path:
        """As :class:`libs.stages.request.request_media.MediaSource`."""
        if (file := self._files.get(path)) is None:
            return self._otherwise.fetch_media(field, path, destination)
        target = destination.with_suffix(PurePosixPath(path).suffix)
        copyfile(file, target)
        return target


@dataclass(frozen=True)
class PreviewFiles:
    """Where the results go.

    Attributes:
        preview: video of the picture, the poses and the driver, as a run makes it.
        sheet: picture of all four ways to fit the poses.
        poses: the key-points, to be handed in with the request (``handed_in_poses``).
    """

    preview: Path
    sheet: Path
    poses: Path


@dataclass(frozen=True)
class PosePreview:
    """What was found and made.

    Attributes:
        request: as it would run.
        media: the picture and the video, as they were measured.
        networks: those that looked.
        tracked: the key-points.
        conditioned: how they were fitted.
        anchor: the driver's frame that was compared.
        can_be_handed_in: whether ``PreviewFiles.poses`` was written.
    """

    request: ResolvedRequest
    media: RequestMedia
    networks: ChosenNetworks
    tracked: TrackedPoses
    conditioned: ConditionedPoses
    anchor: int
    can_be_handed_in: bool

    @property
    def found(self) -> FoundPoses:
        """How much of a person was found."""
        return FoundPoses.of(self.tracked.reference, self.tracked.driver)


def preview_poses(
    request: ResolvedRequest,
    source: MediaSource,
    files: PreviewFiles,
    store: ArtifactStore,
    settings: Settings,
    report: Progress,
) -> PosePreview:
    """Find, fit and draw the poses of ``request``; write ``files``.

    Key-points are shared with the runs of ``store``.

    Raises:
        InputError: a file that the request names is nowhere.
        MediaError: the picture or the video cannot be used.
        ModelFilesError: the pose networks are not here.
        PoseError: nobody was found, or the poses cannot be fitted.
    """
    with TemporaryDirectory(prefix="poses-") as scratch:
        folder = Path(scratch)
        media_folder, tracks, drawn = (folder / name for name in ("media", "tracks", "drawn"))
        for each in (media_folder, tracks, drawn):
            each.mkdir()
        media = fetch_request_media(source, request, media_folder, settings.pose_networks)
        versions = verified_versions(store, request.model)
        networks = networks_on_this_machine(
            media.pose_networks,
            layout_of(request.model, settings),
            settings,
            versions["pose_networks"] if versions else None,
        )
        digests = {path.name: sha256_of_file(path) for path in (media.reference, media.driver)}
        sources = sources_of(media, digests, networks.version, POSE_TRACKS_CODE) if networks.version else None
        shared = SharedPoseTracks(store)
        tracked = track_poses(
            media, networks.load, tracks, lambda done, all_: report("poses", done, all_), shared, sources
        )
        requested = RequestedPoseOptions.model_validate(request.model_dump(include=POSE_OPTION_FIELDS))
        conditioning, choice = condition_poses(
            media, tracks, requested, drawn, lambda done, all_: report("pose preview", done, all_)
        )
        copyfile(drawn / PREVIEW_FILE, files.preview)
        anchor = requested.anchor_frame(tracked.reference, tracked.driver)
        conditioned = ConditionedPoses(conditioning, choice)
        write_png(files.sheet, _sheet(media, requested, tracked, conditioned, anchor))
        kept = _kept(shared, sources) if sources else None
        if kept:
            write_poses(files.poses, kept)
        return PosePreview(request, media, networks, tracked, conditioned, anchor, kept is not None)


def _kept(shared: SharedPoseTracks, sources: TrackSources) -> dict[str, tuple[TrackSource, PoseTrack]] | None:
    """The tracks as they are shared: of the whole video, whatever part of it the request uses."""
    both = {REFERENCE_TRACK: sources.reference, DRIVER_TRACK: sources.driver}
    kept = {name: (source, track) for name, source in both.items() if (track := shared.find(source)) is not None}
    return kept if kept.keys() == both.keys() else None


def _sheet(
    media: RequestMedia,
    requested: RequestedPoseOptions,
    tracked: TrackedPoses,
    conditioned: ConditionedPoses,
    anchor: int,
) -> np.ndarray:
    """The driver, and below it the poses of each way to fit them over the picture that the clip would start from."""
    picture = read_image(media.reference)
    count = len(conditioned.conditioning)
    shown = set(evenly_spaced_indices(count, _COLUMNS))
    rows = {"driver": framed_driver(media, conditioned.conditioning)}
    for mode, align in product(get_args(Mode), (True, False)):
        title = f"mode: {mode}, align: {'yes' if align else 'no'}"
        is_chosen = (mode, align) == (conditioned.choice.mode, conditioned.choice.align)
        options = PoseOptions(mode, align, requested.face, requested.head, anchor)
        try:
            fitted = _fitted(picture, tracked.reference, tracked.driver, options, size_of_clip(requested, picture))
        except PoseError as error:
            rows[f"{title}: {error}"] = (np.zeros_like(conditioned.conditioning.image) for _ in range(count))
        else:
            rows[f"{title} (this is what the clip gets)" if is_chosen else title] = _over_the_picture(fitted, shown)
    return contact_sheet(rows, count, media.output_frame_rate, _COLUMNS)


def _fitted(
    picture: np.ndarray, reference: PoseTrack, driver: PoseTrack, options: PoseOptions, size: tuple[int, int]
) -> PoseConditioning:
    try:
        return prepare_conditioning(picture, reference, driver, options, size)
    except InputError as error:
        raise PoseError(str(error)) from error


def _over_the_picture(conditioning: PoseConditioning, shown: set[int]) -> Iterator[np.ndarray]:
    """The picture the clip starts from, darkened, with the pose of each frame; only those ``shown`` are drawn."""
    dimmed = (conditioning.image * _DIMMED).astype(np.uint8)
    for frame in range(len(conditioning)):
        if frame in shown:
            pose = conditioning.draw(frame, frame + 1)[0]
            yield np.where(pose.any(axis=-1, keepdims=True), pose, dimmed)
        else:
            yield dimmed
