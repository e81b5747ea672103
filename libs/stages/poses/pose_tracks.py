"""Stage: key-points of the reference picture and of every driver frame that is used, as two files.

Frames are cropped and scaled to the reference's size before the networks see them, as the reference implementation does
(docs/specification.md#pose-flow), streamed, never all held at once. Tracks that another request found are taken over
(``shared_pose_tracks``). See ``libs.pose.estimator`` for how key-points are found, ``chosen_networks`` for by what.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self

from libs.media.pictures.image import read_image
from libs.media.video.reader import read_frames
from libs.model_repo.layout import layout_of
from libs.pose.estimator import PoseEstimator
from libs.pose.fitting.followed_person import changes_of_person
from libs.pose.fitting.framing import resize_crop_frames
from libs.pose.person_check import require_body_at_start, require_person
from libs.pose.track import PoseTrack
from libs.settings import Settings
from libs.stages.animation_files import DRIVER_TRACK, REFERENCE_TRACK
from libs.stages.model_verification import verified_versions
from libs.stages.poses.chosen_networks import ChosenNetworks, choose_networks
from libs.stages.poses.found_poses import FoundPoses, sandbox_explained
from libs.stages.poses.shared_pose_tracks import SharedPoseTracks, TrackSource
from libs.stages.request.request_media import RequestMedia
from libs.stages.run import StageRun
from libs.storage.artifacts import ArtifactStore, LocalArtifact

_FRAMES_LISTED = 20
_REFERENCE, _DRIVER = "the reference picture", "the driving video"

FrameCallback = Callable[[int, int], None]


@dataclass(frozen=True)
class TrackSources:
    """What determines the two tracks of a request."""

    reference: TrackSource
    driver: TrackSource


@dataclass(frozen=True)
class TrackedPoses:
    """The tracks of the reference (one frame) and of the driver (``media.used_frame_count`` frames).

    ``reference_reused`` and ``driver_reused`` tell whether another request had looked for them before;
    ``network_frames`` are those that went through the networks now.
    """

    reference: PoseTrack
    driver: PoseTrack
    reference_reused: bool
    driver_reused: bool
    network_frames: int
    looked: Mapping[str, str] = field(default_factory=dict)
    """Which networks looked, for people."""

    def metadata(self) -> dict[str, Any]:
        """The numbers that people are shown."""
        return {
            "frames": len(self.driver),
            **self.looked,
            "frames without a detection": int((self.driver.boxes[:, 4] < 0).sum()),
            "another person may be followed from frame": _listed(changes_of_person(self.driver)),
            **FoundPoses.of(self.reference, self.driver).numbers(),
            "reference reused": self.reference_reused,
            "driver reused": self.driver_reused,
        }


@dataclass(frozen=True)
class PoseTracksJob:
    """Everything that determines the tracks of a request.

    Attributes:
        media: the picture and the video.
        digests: name of a media file -> SHA-256.
        variant: the request's model.
        networks: those that look; without a version nothing can be shared.
        code_version: of this stage.
    """

    media: RequestMedia
    digests: Mapping[str, str]
    variant: str
    networks: ChosenNetworks
    code_version: str

    @classmethod
    def of(
        cls, media: LocalArtifact, variant: str, store: ArtifactStore, settings: Settings, code_version: str
    ) -> Self:
        """Read the artifacts that the tracks are made from.

        Raises:
            MediaError: the description of the media is damaged.
            ModelFilesError: the stored verification cannot be read, or networks that were asked for are not here.
        """
        versions = verified_versions(store, variant)
        described = RequestMedia.load(media.folder)
        own_version = versions["pose_networks"] if versions else None
        return cls(
            media=described,
            digests={file.name: file.sha256 for file in media.manifest.files},
            variant=variant,
            networks=choose_networks(described.pose_networks, layout_of(variant, settings), settings, own_version),
            code_version=code_version,
        )


def make_pose_tracks(job: PoseTracksJob, run: StageRun) -> TrackedPoses:
    """Find the key-points, or take them over from another request, and write both tracks.

    Raises:
        PoseError: no person in the reference or in the driver.
    """
    version = job.networks.version
    with sandbox_explained(job.variant):
        tracked = track_poses(
            job.media,
            job.networks.load,
            run.folder,
            lambda done, all_: run.report("poses", done, all_),
            SharedPoseTracks(run.store),
            sources_of(job.media, job.digests, version, job.code_version) if version else None,
        )
    return replace(tracked, looked=job.networks.describe())


def sources_of(media: RequestMedia, digests: Mapping[str, str], networks: str, code: str) -> TrackSources:
    """What determines the tracks of ``media``.

    The driver's frames are cropped to the reference's size, so requests share its track whose references have one size.
    What was done to its pixels belongs to the code, where something was.

    Args:
        media: the picture and the video.
        digests: file name -> SHA-256 of the files of ``media``.
        networks: version of the pose networks.
        code: version of this stage.
    """

    width, height = media.reference_width, media.reference_height
    driver_code = f"{code}, {media.driver_conversion}" if media.driver_conversion else code
    reference_code = f"{code}, over grey" if media.reference_transparent else code
    interval = media.frame_interval
    return TrackSources(
        TrackSource(digests[media.reference_file], width, height, 1, networks, reference_code),
        TrackSource(
            digests[media.driver_file],
            width,
            height,
            interval,
            networks,
            driver_code,
            first_frame=media.first_frame % interval,
        ),
    )


def track_poses(
    media: RequestMedia,
    estimator: Callable[[], PoseEstimator],
    folder: Path,
    on_frame: FrameCallback,
    shared: SharedPoseTracks,
    sources: TrackSources | None,
) -> TrackedPoses:
    """Find the key-points of both and write ``reference.npz`` and ``driver.npz`` into ``folder``.

    Args:
        media: the picture and the video.
        estimator: gives the networks; called only if they must run.
        folder: an existing folder.
        on_frame: called with (frames done, frames in all).
        shared: tracks found earlier, and where new ones go.
        sources: what determines the tracks; None where it is not known, and nothing can be shared.

    Raises:
        PoseError: no person in the reference or in the driver.
    """

    def shared_or_found(source: TrackSource | None, find: Callable[[], PoseTrack]) -> tuple[PoseTrack, bool]:
        known = shared.find(source) if source else None
        if known is not None:
            return known, True
        found = find()
        if source:
            shared.keep(source, found)
        return found, False

    reference, reference_reused = shared_or_found(
        sources.reference if sources else None, lambda: _track_reference(media, estimator())
    )
    whole, driver_reused = shared_or_found(
        sources.driver if sources else None, lambda: _track_driver(media, estimator(), on_frame)
    )
    driver = _part_of(whole, media)
    reference.save(folder / REFERENCE_TRACK)
    driver.save(folder / DRIVER_TRACK)
    looked_at = (0 if reference_reused else len(reference)) + (0 if driver_reused else len(whole))
    return TrackedPoses(reference, driver, reference_reused, driver_reused, looked_at)


def _part_of(whole: PoseTrack, media: RequestMedia) -> PoseTrack:
    """The track of the used part of a driver that is tracked as a whole.

    Raises:
        PoseError: nobody is there when the part begins, or in all of it.
    """
    used = media.used_frames
    before = used.start // used.step
    part = whole[before : before + len(used)]
    if len(part) < len(whole):
        require_person(part, f"{_DRIVER}, from frame {used.start} to {used[-1]}")
    require_body_at_start(part, _DRIVER)
    return part


def _listed(frames: list[int]) -> str:
    """The first few, as text; an event with all its metadata stays small."""
    shown = ", ".join(str(frame) for frame in frames[:_FRAMES_LISTED]) or "none"
    return shown if len(frames) <= _FRAMES_LISTED else f"{shown} and {len(frames) - _FRAMES_LISTED} more"


def _track_reference(media: RequestMedia, estimator: PoseEstimator) -> PoseTrack:
    track = estimator.estimate([read_image(media.reference)], _REFERENCE)
    require_person(track, _REFERENCE)
    return track


def _track_driver(media: RequestMedia, estimator: PoseEstimator, on_frame: FrameCallback) -> PoseTrack:
    """The whole driver, whatever part of it is used, so that all its parts share the track."""
    first, interval = media.first_frame % media.frame_interval, media.frame_interval
    frames = read_frames(media.driver, interval, first)
    cropped = resize_crop_frames(frames, media.reference_height, media.reference_width)
    count = len(range(first, media.frame_count, interval))
    track = estimator.estimate(cropped, _DRIVER, lambda done: on_frame(done, count), lost_start_allowed=True)
    require_person(track, _DRIVER)
    return track
