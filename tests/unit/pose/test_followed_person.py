from dataclasses import replace

import numpy as np

from libs.pose.fitting.followed_person import changes_of_person
from libs.pose.networks.detector import select_person


def _track(figure, boxes):
    return replace(figure(frames=len(boxes)), boxes=np.array(boxes, np.float32).reshape(-1, 5))


def test_one_dancer_is_one_person(figure):
    swaying = [(100 + 30 * np.sin(t), 40, 180 + 30 * np.sin(t) + 40 * (t % 2), 300, 0.9) for t in range(40)]
    assert changes_of_person(_track(figure, swaying)) == []
    assert changes_of_person(_track(figure, swaying[:1])) == []


def test_persons_who_cross_are_noticed_where_the_larger_one_changes(figure):
    boxes = []
    for t in range(20):
        grown = 120 + 8 * t  # one comes closer, the other goes away, on either side
        near, far = (10, 20, 70, 20 + grown, 0.8, 0), (150, 20, 210, 20 + 280 - 8 * t, 0.9, 0)
        boxes.append(select_person(np.array([far, near], float), 240, 320))
    assert changes_of_person(_track(figure, boxes)) == [11]


def test_frames_without_anybody_are_passed_over(figure):
    here, nobody, there = (10, 10, 60, 200, 0.9), (0, 0, 240, 320, -1), (150, 10, 200, 200, 0.9)
    assert changes_of_person(_track(figure, [here, nobody, nobody, here])) == []
    assert changes_of_person(_track(figure, [here, nobody, there, nobody, there])) == [2]
    assert changes_of_person(_track(figure, [nobody, nobody])) == []
