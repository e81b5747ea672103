import tracemalloc

import numpy as np
import pytest

from libs.errors import ModelFilesError, PoseError
from libs.pose.fitting.framing import resize_crop_frames
from libs.pose.networks import estimator as estimator_module
from libs.pose.networks import prefetch as parallel
from libs.pose.networks.estimator import OnnxPoseEstimator
from libs.pose.person_check import require_body_at_start
from libs.pose.track import frames_without_body


@pytest.fixture
def frames(networks):
    """Frames of the committed clip, which the synthetic networks understand."""
    from PIL import Image

    paths = sorted(next(networks.parent.glob("whole_*_clip")).glob("*.png"))[:5]
    return [np.asarray(Image.open(path).convert("RGB")) for path in paths]


def _estimator(networks, **options):
    return OnnxPoseEstimator(networks / "det_puppet.onnx", networks / "pose_puppet.onnx", **options)


def test_batches_do_not_change_the_result(networks, frames):
    done = []
    one = _estimator(networks, batch_size=1).estimate(frames)
    two = _estimator(networks, batch_size=2).estimate(iter(frames), progress=done.append)
    for name in ("body", "left_hand", "right_hand", "face", "boxes"):
        np.testing.assert_allclose(getattr(one, name), getattr(two, name), atol=1e-5)
    assert done == [2, 4, 5]


def test_frames_are_streamed(networks, frames):
    taken = []

    def stream():
        for index in range(30):
            taken.append(index)
            yield frames[index % len(frames)]

    ahead = []
    _estimator(networks, batch_size=2).estimate(stream(), progress=lambda done: ahead.append(len(taken) - done))
    # beside the batch that is done, at most four are there: two that wait to be detected in (one of them being made),
    # one that is, one that waits for its key-points to be found
    assert len(ahead) == 15
    assert min(ahead) >= 0
    assert max(ahead) <= 4 * 2


def test_a_reader_that_is_stopped_early_is_closed(networks, frames):
    closed = []

    def stream():
        try:
            while True:
                yield frames[0]
        finally:
            closed.append(True)

    def stop(done):
        if done >= 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        _estimator(networks, batch_size=2).estimate(stream(), progress=stop)
    assert closed == [True]


def test_batches_of_different_sizes_in_turn(networks, frames):
    estimator = _estimator(networks, batch_size=3)
    whole = estimator.estimate(frames)
    parts = [estimator.keypoints(frames[start : start + 2])[0] for start in range(0, len(frames), 2)]
    np.testing.assert_array_equal(np.concatenate(parts), whole.boxes)


@pytest.mark.slow
def test_memory_does_not_grow_with_the_clip(networks, frames):
    """Beside the track itself, 3 KB a frame at most; how full the steps are makes a few frames more or less."""
    estimator = _estimator(networks, batch_size=2)

    def peak(count):
        tracemalloc.start()
        estimator.estimate(frames[0].copy() for _ in range(count))
        highest = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return highest

    peak(4)
    few, many = peak(12), peak(36)
    assert many - few < 24 * 3 * 1024 + 10 * frames[0].nbytes < 24 * frames[0].nbytes


def test_batches_of_large_frames_are_small_and_change_nothing(networks, frames, monkeypatch):
    whole = _estimator(networks).estimate(frames)
    monkeypatch.setattr(estimator_module, "BATCH_BYTES", 2 * frames[0].nbytes)
    done = []
    small = _estimator(networks).estimate(frames, progress=done.append)
    assert done == [2, 4, 5]
    monkeypatch.setattr(estimator_module, "BATCH_BYTES", 1)
    done.clear()
    single = _estimator(networks).estimate(frames, progress=done.append)
    assert done == [1, 2, 3, 4, 5]
    for name in ("body", "left_hand", "right_hand", "face", "boxes"):
        np.testing.assert_allclose(getattr(small, name), getattr(whole, name), atol=1e-5)
        np.testing.assert_allclose(getattr(single, name), getattr(whole, name), atol=1e-5)


def test_frames_of_a_cameras_size_are_resized_few_at_a_time(frames, monkeypatch):
    monkeypatch.setattr(parallel, "_MOST_BYTES", 8 * (frames[0].nbytes + 32 * 24 * 3))
    monkeypatch.setattr(parallel.os, "sched_getaffinity", lambda _: set(range(16)))
    held = []

    def stream():
        for taken in range(100):
            held.append(taken)
            yield frames[0]

    for done, _ in enumerate(resize_crop_frames(stream(), 32, 24), start=1):
        assert len(held) - done <= 8
    assert done == 100


def test_looking_ahead_is_bounded(frames):
    taken = []

    def stream():
        for index in range(200):
            taken.append(index)
            yield frames[0]

    resized = resize_crop_frames(stream(), 32, 24)
    next(resized)
    assert len(taken) < 50
    resized.close()


def test_a_clip_without_frames_is_refused(networks):
    with pytest.raises(PoseError, match="driver: there are no frames"):
        _estimator(networks).estimate([], subject="driver")


def test_frames_of_two_sizes(networks, frames):
    with pytest.raises(PoseError, match="frame 1 has"):
        _estimator(networks).estimate([frames[0], frames[0][:-2]])


@pytest.mark.parametrize("frame", [np.zeros((64, 48), np.uint8), np.zeros((64, 48, 3), np.float32)])
def test_frames_that_are_no_pictures(networks, frame):
    with pytest.raises(PoseError, match="frame 0 is"):
        _estimator(networks).estimate([frame])


def test_networks_mixed_up(networks):
    with pytest.raises(ModelFilesError, match=r"pose_puppet\.onnx"):
        OnnxPoseEstimator(networks / "pose_puppet.onnx", networks / "det_puppet.onnx")


def test_first_frame_without_any_response_names_the_frame(networks):
    estimator = OnnxPoseEstimator(networks / "det_puppet.onnx", networks / "pose_puppet_noprior.onnx")
    with pytest.raises(PoseError, match=r"reference: .*frame 0.*choose a picture"):
        estimator.estimate([np.full((160, 120, 3), 127, np.uint8)], subject="reference")


def test_a_start_that_is_lost_may_be_allowed_where_only_a_part_is_used(networks, frames):
    estimator = OnnxPoseEstimator(networks / "det_puppet.onnx", networks / "pose_puppet_noprior.onnx")
    blank = np.full_like(frames[0], 127)
    track = estimator.estimate([blank, frames[0]], lost_start_allowed=True)
    assert frames_without_body(track.body).tolist() == [True, False]
    with pytest.raises(PoseError, match=r"driver: .*frame 0"):
        require_body_at_start(track, "driver")
    require_body_at_start(track[1:], "driver")
