from dataclasses import replace

import numpy as np
import pytest

from libs.errors import InputError, MediaError, PoseError
from libs.pose.conditioning import PoseConditioning, prepare_conditioning
from libs.pose.options import PoseOptions

ALL_MODES = [PoseOptions(mode=mode, align=align) for mode in ("ref", "pose") for align in (True, False)]
SIZE = (160, 112)


def _prepare(picture, figure, options=None, **driver):
    return prepare_conditioning(picture, figure(), figure(frames=6, sway=0.1, **driver), options or PoseOptions(), SIZE)


@pytest.mark.parametrize("options", ALL_MODES)
def test_stored_conditioning_is_the_same(picture, figure, tmp_path, options):
    made = _prepare(picture, figure, options, scale=0.8)
    made.save(tmp_path)
    loaded = PoseConditioning.load(tmp_path)
    for name in ("image", "reference_pose", "mask"):
        np.testing.assert_array_equal(getattr(loaded, name), getattr(made, name))
    assert loaded.driver.body.dtype == made.driver.body.dtype
    np.testing.assert_array_equal(loaded.draw(0, 6), made.draw(0, 6))
    first = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    made.save(tmp_path)
    assert first == {path.name: path.read_bytes() for path in tmp_path.iterdir()}


def test_frames_can_be_drawn_in_any_pieces(picture, figure):
    conditioning = _prepare(picture, figure)
    whole = conditioning.draw(0, 6)
    assert whole.shape == (6, *SIZE, 3) and whole.dtype == np.uint8
    pieces = np.concatenate([conditioning.draw(0, 1), conditioning.draw(1, 5), conditioning.draw(5, 6)])
    np.testing.assert_array_equal(whole, pieces)
    assert conditioning.draw(3, 3).shape == (0, *SIZE, 3)
    for wrong in ((-1, 2), (0, 7), (4, 3)):
        with pytest.raises(IndexError):
            conditioning.draw(*wrong)


def test_what_the_modes_do_to_the_reference(picture, figure):
    kept = _prepare(picture, figure, PoseOptions("ref", align=False), scale=0.5)
    moved = _prepare(picture, figure, PoseOptions("pose", align=False), scale=0.5)
    assert not kept.mask.any() and moved.mask.any()
    assert (moved.image[moved.mask == 255] == 0).all()
    np.testing.assert_array_equal(kept.draw(0, 6), moved.draw(0, 6))


@pytest.mark.parametrize("options", ALL_MODES)
def test_best_anchor_can_be_chosen_in_every_mode(picture, figure, options):
    assert len(_prepare(picture, figure, replace(options, anchor=None))) == 6


@pytest.mark.parametrize("score", [0.95, 0.35], ids=["full", "half"])
@pytest.mark.parametrize("anchor", [0, 2])
def test_the_figure_does_not_jump_after_the_first_frame(picture, figure, anchor, score):
    driver = figure(frames=5)
    driver.body[..., 0] += np.linspace(0, 0.2, 5, dtype=np.float32)[:, None]  # walks to the right
    reference = figure()
    for track in (driver, reference):
        track.body[:, 8:14, 2] = score
    fitted = prepare_conditioning(picture, reference, driver, PoseOptions("ref", anchor=anchor), (128, 96)).driver
    np.testing.assert_allclose(np.diff(fitted.body[:, 1, 0]), 0.05, atol=1e-4)


def test_anchor_that_is_not_there(picture, figure):
    for mode in ("ref", "pose"):
        with pytest.raises(PoseError, match="no frame 6"):
            _prepare(picture, figure, PoseOptions(mode, anchor=6))


def test_no_person_in_reference_or_driver_is_an_error(picture, figure):
    nobody = {"score": 0.1, "detected": False}
    with pytest.raises(PoseError, match="reference: no person"):
        prepare_conditioning(picture, figure(**nobody), figure(frames=2), PoseOptions(), SIZE)
    with pytest.raises(PoseError, match="driver: no person"):
        prepare_conditioning(picture, figure(), figure(frames=2, **nobody), PoseOptions(), SIZE)


def test_tracks_of_other_frame_sizes(picture, figure):
    with pytest.raises(PoseError, match="driver: its poses belong to frames of 100 x 100"):
        _prepare(picture, figure, width=100, height=100)


def test_figure_outside_the_picture_in_all_frames(picture, figure):
    driver = figure(frames=2)
    body = driver.body.copy()
    body[..., 0] += 5
    with pytest.raises(PoseError, match="no body joint lies inside"):
        prepare_conditioning(picture, figure(), replace(driver, body=body), PoseOptions("ref", align=False), SIZE)


@pytest.mark.parametrize("mode", ["ref", "pose"])
def test_shoulders_on_one_spot(picture, figure, mode):
    driver = figure(frames=2)
    body = driver.body.copy()
    body[:, [2, 5, 16, 17], :2] = body[:, [1], :2]
    try:
        prepare_conditioning(picture, figure(), replace(driver, body=body), PoseOptions(mode), SIZE).draw(0, 2)
    except PoseError as error:
        assert "choose another" in str(error)


def test_empty_size(picture, figure):
    with pytest.raises(MediaError):
        prepare_conditioning(picture, figure(), figure(frames=2), PoseOptions(), (0, 96))


@pytest.mark.parametrize("damage", ["driver_poses.npz", "mask.png", "image.png"])
def test_damaged_folder_is_named(picture, figure, tmp_path, damage):
    _prepare(picture, figure).save(tmp_path)
    (tmp_path / damage).write_bytes(b"damaged")
    with pytest.raises(PoseError, match=damage.replace(".", r"\.")):
        PoseConditioning.load(tmp_path)
    (tmp_path / damage).unlink()
    with pytest.raises(PoseError, match=damage.replace(".", r"\.")):
        PoseConditioning.load(tmp_path)


@pytest.mark.parametrize(
    "wrong", [{"mode": "warp"}, {"face": "half"}, {"head": "half"}, {"anchor": -1}], ids=lambda wrong: next(iter(wrong))
)
def test_unknown_options_are_named(wrong):
    with pytest.raises(InputError, match=next(iter(wrong))):
        PoseOptions(**wrong)
