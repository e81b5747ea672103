import pytest

from libs.errors import PoseError
from libs.pose.person_check import require_person


def test_a_clip_without_anybody_is_named_with_its_best_score(figure):
    with pytest.raises(PoseError, match=r"driver: no person found \(frames 0 to 4; best body key-point score 0\.20"):
        require_person(figure(frames=5, score=0.2, detected=False), "driver")


def test_single_picture_without_anybody(figure):
    with pytest.raises(PoseError, match=r"reference: no person found \(frame 0;.*use a picture"):
        require_person(figure(score=0.2, detected=False), "reference")


@pytest.mark.parametrize(("score", "detected"), [(0.31, False), (0.1, True), (0.9, True)])
def test_a_detection_or_a_sure_joint_is_enough(figure, score, detected):
    require_person(figure(frames=2, score=score, detected=detected), "driver")


def test_no_frames(figure):
    with pytest.raises(PoseError, match="no frames"):
        require_person(figure(frames=2)[:0], "driver")
