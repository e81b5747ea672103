"""The time left of a review: the parts before and after the pose networks count."""

import pytest

from libs.stages.review.review_progress import AFTER_POSES, ASSUMED_POSES, BEFORE_POSES, ReviewProgress

FRAMES = 50


class Review:
    """A review on a machine where the parts that decode take ``unit`` seconds, and a frame ``frame`` seconds."""

    def __init__(self, unit: float, frame: float, loading: float = 0.0) -> None:
        self.now = 0.0
        self.reported: list[tuple[float, int, int, float | None]] = []
        """(when, done, in all, seconds left)"""
        progress = ReviewProgress(
            lambda done, total, left: self.reported.append((self.now, done, total, left)), FRAMES, lambda: self.now
        )
        for part, share in BEFORE_POSES.items():
            self.now += unit * share
            progress.finished(part)
        self.now += loading
        for done in range(5, FRAMES + 1, 5):
            self.now += 5 * frame
            progress.found(done)
        for part, share in AFTER_POSES.items():
            self.now += unit * share
            progress.finished(part)


@pytest.mark.parametrize("frame", [0.002, 0.04, 2.0], ids=["fast networks", "as measured", "slow networks"])
def test_what_is_left_is_what_it_will_take(frame: float) -> None:
    review = Review(unit=2.0, frame=frame, loading=3.0)
    known = [entry for entry in review.reported if entry[1] > FRAMES / ASSUMED_POSES + 6]
    assert len(known) == FRAMES // 5 - 1 + len(AFTER_POSES)
    for when, _, _, left in known:
        assert left == pytest.approx(review.now - when, abs=1e-6)


def test_before_the_first_frame_the_networks_are_assumed_to_take_what_they_took_when_measured() -> None:
    review = Review(unit=2.0, frame=2.0 * ASSUMED_POSES / FRAMES)
    for when, _, _, left in review.reported:
        assert left == pytest.approx(review.now - when, abs=1e-6)


def test_the_end_is_reached_when_the_last_part_is_finished_and_not_before() -> None:
    shares = [done / total for _, done, total, _ in Review(unit=2.0, frame=0.04).reported]
    assert shares == sorted(shares)
    assert shares[-1] == 1.0
    assert max(shares[:-1]) < 0.95
