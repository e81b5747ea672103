from dataclasses import replace

import numpy as np
import pytest

from libs.errors import PoseError
from libs.pose.person_check import FoundJoints, frame_list, require_person


def test_a_clip_without_anybody_is_named_with_its_best_score(figure):
    with pytest.raises(PoseError, match=r"driver: no person found \(frames 0 to 4; best body key-point score 0\.20"):
        require_person(figure(frames=5, score=0.2, detected=False), "driver")


def test_single_picture_without_anybody(figure):
    with pytest.raises(PoseError, match=r"reference: no person found \(frame 0;.*use a picture"):
        require_person(figure(score=0.2, detected=False), "reference")


@pytest.mark.parametrize(("score", "detected"), [(0.31, False), (0.1, True), (0.9, True)])
def test_a_detection_or_a_sure_joint_is_enough(figure, score, detected):
    require_person(figure(frames=2, score=score, detected=detected), "driver")


def test_a_clip_without_frames_is_refused(figure):
    with pytest.raises(PoseError, match="no frames"):
        require_person(figure(frames=2)[:0], "driver")


def with_scores(track, joints, score=0.03):
    """The track with all but ``joints`` joints at ``score``."""
    body = track.body.copy()
    body[:, joints:, 2] = score
    return replace(track, body=body)


@pytest.mark.parametrize(
    ("joints", "enough"), [(18, True), (13, True), (5, True), (4, False), (2, False), (0, False)], ids=str
)
def test_a_face_alone_is_enough_and_two_joints_are_not(figure, joints, enough):
    found = FoundJoints.of(with_scores(figure(), joints))
    assert found.joints == (joints,)
    assert found.enough is enough


def test_joints_outside_the_picture_do_not_count(figure):
    track = figure()
    body = track.body.copy()
    body[..., 0] += 1
    assert FoundJoints.of(replace(track, body=body)).joints == (0,)


def test_scores_that_are_no_numbers_are_not_enough(figure):
    assert not FoundJoints.of(figure(score=np.nan)).enough


@pytest.mark.parametrize(
    ("shown", "enough", "good"), [(20, True, True), (10, True, False), (5, True, False), (4, False, False)]
)
def test_a_driver_that_shows_somebody_at_times(figure, shown, enough, good):
    track = figure(frames=20)
    body = track.body.copy()
    body[shown:, :, 2] = 0.03
    found = FoundJoints.of(replace(track, body=body))
    assert found.poor_frames == list(range(shown, 20))
    assert (found.enough, found.good) == (enough, good)


def test_no_frames_are_no_findings(figure):
    with pytest.raises(PoseError, match="no frames"):
        FoundJoints.of(figure(frames=2)[:0])


@pytest.mark.parametrize(
    ("frames", "words"),
    [
        ([3], "frame 3"),
        ([0, 1, 2, 7], "frames 0 to 2, 7"),
        (range(0, 14, 2), "frames 0, 2, 4, 6, 8 and 2 more"),
    ],
)
def test_frames_in_words(frames, words):
    assert frame_list(frames) == words
