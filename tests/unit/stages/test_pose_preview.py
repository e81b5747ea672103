"""Poses made before a request is submitted: what is written, and that a run elsewhere takes the key-points over."""

import json
import logging
import zipfile
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from libs.errors import InputError
from libs.media.video.probe import probe_video
from libs.pose.track import PoseTrack
from libs.progress import no_progress
from libs.requests.documents.animation_request import POSE_OPTION_FIELDS, AnimationRequest
from libs.sandbox.media import write_puppet_clip, write_puppet_picture
from libs.settings import Settings
from libs.stages.animation_files import OPTIONS_FILE, POSE_TRACKS_CODE
from libs.stages.poses import pose_preview
from libs.stages.poses.chosen_networks import ChosenNetworks
from libs.stages.poses.handed_in_poses import take_in_poses, write_poses
from libs.stages.poses.pose_conditioning import make_conditioning
from libs.stages.poses.pose_preview import LocalMedia, PosePreview, PreviewFiles, preview_poses
from libs.stages.poses.pose_tracks import PoseTracksJob, make_pose_tracks
from libs.stages.poses.shared_pose_tracks import SharedPoseTracks, TrackSource
from libs.stages.request.request_media import RequestMedia, fetch_request_media
from libs.stages.run import StageRun
from libs.storage.artifacts import ArtifactStore
from libs.storage.backends.folder import FolderObjectStore
from libs.storage.backends.sha256 import sha256_of_file

WIDTH, HEIGHT, FRAMES = 96, 128, 8


class Known:
    """Finds the puppet where it was drawn; counts the frames that it looked at."""

    def __init__(self, picture: np.ndarray, clip: np.ndarray) -> None:
        self.points, self.looked = {1: picture[None], len(clip): clip}, 0

    def estimate(
        self,
        frames: Iterable[np.ndarray],
        subject: str = "video",
        progress: Callable[[int], None] | None = None,
        *,
        lost_start_allowed: bool = False,
    ) -> PoseTrack:
        count = sum(1 for _ in frames)
        self.looked += count
        points = np.ones((count, 133, 3), np.float32)
        points[..., :2] = self.points[count]
        return PoseTrack.from_wholebody(points, WIDTH, HEIGHT, boxes=np.ones((count, 5)))

    def keypoints(self, frames: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        raise NotImplementedError


class Nowhere:
    def fetch_media(self, field: str, path: str, destination: Path) -> Path:
        raise InputError(f"{field}: there is no file {path!r}")


class Desk:
    """A picture, a video and a request on one machine; ``known`` are the networks of all machines."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.media = {"hero.png": folder / "hero.png", "dance.mp4": folder / "dance.mp4"}
        picture = write_puppet_picture(self.media["hero.png"], width=WIDTH, height=HEIGHT)
        clip = write_puppet_clip(self.media["dance.mp4"], width=WIDTH, height=HEIGHT, frame_count=FRAMES, audio=False)
        self.known = Known(picture, clip)
        self.networks = ChosenNetworks("known", "known 1", lambda: self.known)
        self.request = AnimationRequest(id="hero", reference="hero.png", driver="dance.mp4", model="14b").resolve("14b")
        self.settings = Settings(models_dir=folder / "models", data_dir=folder / "data")
        self.results = PreviewFiles(folder / "preview.mp4", folder / "fits.png", folder / "hero.poses")
        self.digests = {name: sha256_of_file(path) for name, path in self.media.items()}

    def store(self, name: str) -> ArtifactStore:
        return ArtifactStore(FolderObjectStore(self.folder / name), self.folder / f"{name}-cache")

    def preview(self, store: ArtifactStore) -> PosePreview:
        source = LocalMedia(self.media, Nowhere())
        return preview_poses(self.request, source, self.results, store, self.settings, no_progress)

    def run(self, store: ArtifactStore, networks: ChosenNetworks) -> tuple[bool, bool]:
        """What a run does; which tracks it took over."""
        folders = self.folder / "run-media", self.folder / "run-tracks"
        for folder in folders:
            folder.mkdir(exist_ok=True)
        media = fetch_request_media(LocalMedia(self.media, Nowhere()), self.request, folders[0])
        described = RequestMedia.load(media.folder)
        digests = {path.name: sha256_of_file(path) for path in (media.reference, media.driver)}
        job = PoseTracksJob(described, digests, "14b", networks, POSE_TRACKS_CODE)
        run = StageRun("run", folders[1], store, no_progress, logging.getLogger("test"))
        tracked = make_pose_tracks(job, run)
        return tracked.reference_reused, tracked.driver_reused


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Desk:
    made = Desk(tmp_path)
    monkeypatch.setattr(pose_preview, "networks_on_this_machine", lambda *_: made.networks)
    return made


def test_a_preview_shows_what_the_clip_gets_and_a_run_of_the_same_store_looks_for_nothing(desk: Desk) -> None:
    store = desk.store("store")
    made = desk.preview(store)
    assert made.can_be_handed_in
    assert made.found.enough and made.found.reference.joints == (18,)
    assert made.conditioned.choice.reason.startswith("Same framing")
    assert probe_video(desk.results.preview).frame_count == FRAMES
    sheet = np.asarray(Image.open(desk.results.sheet))
    assert sheet.shape[0] > 5 * 192, "the driver and four ways to fit its poses"
    assert desk.known.looked == 1 + FRAMES
    assert desk.run(store, desk.networks) == (True, True)
    assert desk.known.looked == 1 + FRAMES


def test_key_points_are_handed_in_to_another_store_and_serve_only_the_same_media_networks_and_software(
    desk: Desk,
) -> None:
    desk.preview(desk.store("laptop"))
    fleet = desk.store("fleet")
    assert take_in_poses(desk.results.poses, SharedPoseTracks(fleet), desk.digests) == ["hero.png", "dance.mp4"]
    assert desk.run(fleet, desk.networks) == (True, True)
    assert desk.run(fleet, replace(desk.networks, version="known 2")) == (False, False)
    write_puppet_clip(desk.media["dance.mp4"], width=WIDTH, height=HEIGHT, frame_count=FRAMES, seed=3, audio=False)
    assert desk.run(fleet, desk.networks) == (True, False)


def test_the_progress_of_a_runs_preview_counts_its_small_picture(desk: Desk) -> None:
    store = desk.store("store")
    desk.run(store, desk.networks)
    made = {name: desk.folder / name for name in ("run-media", "run-options", "run-tracks", "run-poses")}
    for name in ("run-options", "run-poses"):
        made[name].mkdir()
    (made["run-options"] / OPTIONS_FILE).write_text(json.dumps(desk.request.model_dump(include=POSE_OPTION_FIELDS)))
    told: list[tuple[int, int | None]] = []
    run = StageRun(
        "run",
        made["run-poses"],
        store,
        lambda _, done, total, *__: told.append((done, total)),
        logging.getLogger("test"),
    )
    media, options, tracks = (SimpleNamespace(folder=made[f"run-{name}"]) for name in ("media", "options", "tracks"))
    make_conditioning(media, options, tracks, run)
    total = FRAMES + round(1.5 * FRAMES)  # a frame of the picture takes longer than one of the preview
    assert told == [*((done, total) for done in range(1, FRAMES + 1)), (total, total)]


MEDIA = {"hero.png": "1" * 64, "dance.mp4": "2" * 64}


def write_key_points(folder: Path) -> Path:
    """A file of key-points found in ``MEDIA``."""
    path = folder / "hero.poses"
    tracks = {}
    for name, digest in zip(("reference.npz", "driver.npz"), MEDIA.values(), strict=True):
        track = PoseTrack.from_wholebody(np.ones((2, 133, 3), np.float32), WIDTH, HEIGHT)
        tracks[name] = TrackSource(digest, WIDTH, HEIGHT, 1, "known 1", "1"), track
    write_poses(path, tracks)
    return path


def shared_tracks(folder: Path) -> SharedPoseTracks:
    return SharedPoseTracks(ArtifactStore(FolderObjectStore(folder / "store"), folder / "cache"))


def test_the_file_of_key_points_is_the_same_each_time(tmp_path: Path) -> None:
    before = write_key_points(tmp_path).read_bytes()
    assert write_key_points(tmp_path).read_bytes() == before


def test_key_points_of_other_media_are_refused(tmp_path: Path) -> None:
    path, others = write_key_points(tmp_path), {**MEDIA, "dance.mp4": "0" * 64}
    with pytest.raises(InputError, match=r"its driver is none of the media handed in .*`one-to-all poses`"):
        take_in_poses(path, shared_tracks(tmp_path), others)


@pytest.mark.parametrize("damage", ["text", "cut", "format", "member", "fields"])
def test_a_file_that_holds_no_key_points_is_an_error_that_names_it(tmp_path: Path, damage: str) -> None:
    path = write_key_points(tmp_path)
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    described = json.loads(members["sources.json"])
    match damage:
        case "text":
            path.write_text("no archive")
        case "cut":
            path.write_bytes(path.read_bytes()[:-40])
        case "format":
            described["format"] = "poses-9"
        case "member":
            del members["driver.npz"]
        case "fields":
            del described["tracks"]["driver.npz"]["content"]
    if damage in {"format", "member", "fields"}:
        members["sources.json"] = json.dumps(described).encode()
        with zipfile.ZipFile(path, "w") as archive:
            for name, data in members.items():
                archive.writestr(name, data)
    with pytest.raises(InputError, match=r"hero\.poses: "):
        take_in_poses(path, shared_tracks(tmp_path), MEDIA)
