"""Landmarks of real people against those of MediaPipe's own graphs (``people/*.npz`` of the golden folders).

The library's region of each frame depends on the landmarks of the frame before, and a network answers a change of a
thousandth of a pixel with one of a hundredth: after ten frames two exact implementations are half a pixel apart.
"""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from golden_folders import golden_cases
from people import frames_of, medium, network_folder

from libs.pose.mediapipe.estimator import MediaPipeEstimator
from libs.pose.mediapipe.holistic import BodyFollower, PersonFollower
from libs.pose.mediapipe.networks import Networks

pytestmark = pytest.mark.slow

KIND = "landmarks of people"
PARTS = ("left", "right", "face")


def _discover(folder: Path) -> Iterator[tuple[str, Path]]:
    for path in sorted(folder.glob("people/*.npz")):
        yield path.stem, path


@pytest.fixture(scope="module")
def networks(tmp_path_factory: pytest.TempPathFactory) -> Networks:
    return Networks.open(network_folder(tmp_path_factory.mktemp("networks")))


@pytest.fixture(scope="module")
def dancer() -> np.ndarray:
    return next(frames_of(medium("vid_3s")))


def _points(found: list[np.ndarray | None], count: int) -> np.ndarray:
    return np.stack([np.full((count, 2), np.nan) if one is None else one for one in found])


def _shares(found: np.ndarray, expected: np.ndarray) -> tuple[int, int, int, int]:
    """Frames where the library finds it, where both do; where it finds nothing, where both find nothing."""
    seen, wanted = np.isfinite(found[:, 0, 0]), np.isfinite(expected[:, 0, 0])
    return int(wanted.sum()), int((seen & wanted).sum()), int((~wanted).sum()), int((~seen & ~wanted).sum())


KNOWN_SHORT = {"vid_3s": {"right"}}
"""Parts that are still found in less than 95 % of the frames in which the library finds them."""


def _distances(found: np.ndarray, expected: np.ndarray) -> np.ndarray:
    distances = np.linalg.norm(found - expected, axis=-1)
    return distances[np.isfinite(distances)]


@pytest.mark.parametrize("path", golden_cases(KIND, _discover))
def test_landmarks_are_those_of_the_library(
    path: Path, networks: Networks, record_case: Callable[[str, float | None], None]
) -> None:
    vectors = np.load(path)
    size = vectors["size"].astype(float)
    follower = PersonFollower(networks)
    people = [follower.follow(frame) for frame in frames_of(medium(path.stem))]
    body = _points([one.body and one.body.points for one in people], 33)
    found = {
        "left": _points([one.left_hand and one.left_hand.points for one in people], 21),
        "right": _points([one.right_hand and one.right_hand.points for one in people], 21),
        "face": _points([one.face and one.face.points for one in people], 468),
    }
    expected = {name: vectors[name][..., :2] * size for name in ("pose_alone", "pose", *PARTS)}

    scale = max(1.0, size.max() / 1024)
    largest = 0.0
    for name in ("pose_alone", "pose"):  # the body is the same whether or not hands and face are looked for
        wanted, both, unseen, neither = _shares(body, expected[name])
        assert both >= 0.95 * wanted and neither >= 0.9 * unseen, (name, wanted, both, unseen, neither)
        if both:
            distances = _distances(body, expected[name])
            largest = max(largest, float(np.median(distances)))
            assert np.median(distances) <= 1.0 * scale, name
            assert np.percentile(distances, 95) <= 4.0 * scale, name
    counts = np.array([_shares(found[name], expected[name]) for name in PARTS])
    short = {
        name: counts_of.tolist()
        for name, counts_of in zip(PARTS, counts, strict=True)
        if counts_of[1] < 0.95 * counts_of[0] or counts_of[3] < 0.9 * counts_of[2]
    }
    for name in PARTS:
        distances = _distances(found[name], expected[name])
        if len(distances):
            assert np.median(distances) <= 2.0 * scale, name
            largest = max(largest, float(np.median(distances)))
    wanted, both, unseen, neither = counts.sum(axis=0)
    assert both >= 0.95 * wanted, counts
    assert neither >= 0.9 * unseen, counts
    record_case(KIND, largest)
    assert short.keys() <= KNOWN_SHORT.get(path.stem, set()), short
    if short:
        pytest.xfail(f"found in too few frames (wanted, found, nothing to find, nothing found): {short}")


def _body(networks: Networks, picture: np.ndarray) -> np.ndarray:
    body = BodyFollower(networks).follow(picture)
    assert body is not None
    return body.points


def test_a_picture_moved_scaled_or_turned_gives_points_moved_scaled_or_turned(
    networks: Networks, dancer: np.ndarray
) -> None:
    width = dancer.shape[1]
    plain = _body(networks, dancer)
    margin = 64
    padded = np.pad(dancer, ((margin, margin), (margin, margin), (0, 0)), mode="edge")
    moved = _body(networks, padded) - margin
    doubled = _body(networks, dancer.repeat(2, axis=0).repeat(2, axis=1)) / 2
    on_its_side = _body(networks, np.ascontiguousarray(np.rot90(dancer)))
    turned_back = np.stack([width - 1 - on_its_side[:, 1], on_its_side[:, 0]], axis=1)
    for name, points, most in (("moved", moved, 6.0), ("doubled", doubled, 5.0), ("turned", turned_back, 6.0)):
        distances = np.linalg.norm(points - plain, axis=1)
        assert np.median(distances) < most, (name, np.round(distances, 1))


def test_a_mirrored_picture_gives_mirrored_points_with_left_and_right_exchanged(
    networks: Networks, dancer: np.ndarray
) -> None:
    plain, mirrored = _body(networks, dancer), _body(networks, np.ascontiguousarray(dancer[:, ::-1]))
    mirrored[:, 0] = dancer.shape[1] - 1 - mirrored[:, 0]
    left, right = list(range(11, 33, 2)), list(range(12, 33, 2))
    exchanged = np.median(np.linalg.norm(plain[left] - mirrored[right], axis=1))
    kept = np.median(np.linalg.norm(plain[left] - mirrored[left], axis=1))
    assert exchanged < 20, "2 % of the picture's height"
    assert kept > 2 * exchanged


def test_a_person_who_leaves_is_neither_drawn_nor_counted_and_is_found_again(
    networks: Networks, dancer: np.ndarray, tmp_path_factory: pytest.TempPathFactory
) -> None:
    estimator = MediaPipeEstimator(network_folder(tmp_path_factory.mktemp("networks")))
    nobody = np.full_like(dancer, 127)
    track = estimator.estimate([nobody, dancer, dancer, dancer, nobody, nobody, dancer])
    assert (track.boxes[:, 4] >= 0).tolist() == [False, True, True, True, False, False, True]
    assert (track.body[[0, 4, 5], :, 2] == 0).all()
    assert np.allclose(track.body[5, :, :2], track.body[3, :, :2]), "held where last seen"
    assert np.allclose(track.body[6, :, :2], track.body[1, :, :2], atol=1e-6), "found again without a jump"
    still = np.linalg.norm((track.body[3] - track.body[2])[:18, :2] * [track.width, track.height], axis=1)
    assert np.median(still) < 5, "a still video hardly jitters"


def test_of_two_people_both_are_detected_and_one_is_followed(networks: Networks, dancer: np.ndarray) -> None:
    from libs.pose.mediapipe.holistic import person_detector

    pair = np.concatenate([dancer, dancer[:, ::-1]], axis=1)
    people = person_detector(networks).detect(pair)
    middles = sorted((people.boxes[:, 0] + people.boxes[:, 2]) / 2)
    assert len(people) == 2
    assert middles[0] < dancer.shape[1] < middles[1]
    follower = BodyFollower(networks)
    first, second = follower.follow(pair), follower.follow(pair)
    assert first is not None and second is not None
    assert np.median(np.linalg.norm(first.points - second.points, axis=1)) < 10
