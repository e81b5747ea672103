"""Part of a driver: what a person may write, and which frames it means."""

import json
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from libs.errors import InputError
from libs.requests.documents.animation_request import AnimationRequest, ResolvedRequest, parse_request
from libs.requests.documents.driver_part import frames_of_part

NTSC = Fraction(30000, 1001)
MINIMAL = {"id": "clip-1", "reference": "puppet.png", "driver": "dance.mp4"}


def parse(document: str = "", **fields: object) -> AnimationRequest:
    lines = [f"{name}: {value}" for name, value in MINIMAL.items()]
    text = "\n".join([*lines, document]) if document else json.dumps(MINIMAL | fields)
    return parse_request(text, source="inbox/clip-1.yaml")


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("2", 2.0),
        ("2.5", 2.5),
        ("2.5s", 2.5),
        ("2.5 seconds", 2.5),
        ("1:30", 90.0),
        ("1:30.25", 90.25),
        ("1:02:03", 3723.0),
        ("0:7", 7.0),
        ("75f", "75f"),
        ("75 frames", "75f"),
        ("007f", "7f"),
    ],
)
def test_times_as_people_write_them(written: str, meant: float | str) -> None:
    request = parse(f"start: {written}\nduration: {written}")
    assert (request.start, request.duration) == (meant, meant)
    resolved = request.resolve("14b")
    assert ResolvedRequest.model_validate_json(resolved.model_dump_json()) == resolved
    assert resolved.clip_fields() == parse().resolve("14b").clip_fields() | {"start": meant, "duration": meant}


@pytest.mark.parametrize(
    "written", ["-1", "soon", "1:75", "43201", "1e9", "true", "[1]", "''", ".nan", "1:2:3:4", "7x"]
)
def test_what_is_no_time_is_refused_by_field_and_with_an_example(written: str) -> None:
    for field in ("start", "duration"):
        with pytest.raises(InputError, match=rf"clip-1\.yaml: {field}: (must be|is far|has no).* \(found "):
            parse(f"{field}: {written}")


@pytest.mark.parametrize("nothing", ["0", "0f", "0:00"])
def test_a_part_without_length_is_refused(nothing: str) -> None:
    with pytest.raises(InputError, match="duration: must be longer than nothing"):
        parse(f"duration: {nothing}")


@pytest.mark.parametrize(
    ("start", "duration", "rate", "frames"),
    [
        (None, None, Fraction(25), range(250)),
        (2.5, None, Fraction(25), range(63, 250)),
        (2.5, 5.0, Fraction(30), range(75, 225)),
        (2.1, 0.1, Fraction(30), range(63, 66)),  # 2.1 is no binary fraction, and frame 63 is shown at 2.1
        ("75f", "10f", NTSC, range(75, 85)),
        (1.0, 1.0, NTSC, range(30, 60)),
        (None, "250f", Fraction(25), range(250)),
        (None, 10.03, Fraction(25), range(250)),  # as a player shows the length of the sound
    ],
)
def test_the_frames_of_a_part(
    start: float | str | None, duration: float | str | None, rate: Fraction, frames: range
) -> None:
    assert frames_of_part(start, duration, rate, 250) == frames


times = st.integers(0, 12_000).map(lambda milliseconds: milliseconds / 1000)


@given(
    times, times.filter(bool), st.sampled_from([Fraction(24), Fraction(25), NTSC, Fraction(60)]), st.integers(1, 300)
)
def test_a_frame_is_used_if_it_is_shown_from_start_to_end(
    start: float, duration: float, rate: Fraction, count: int
) -> None:
    begin, end = Fraction(str(start)), Fraction(str(start)) + Fraction(str(duration))
    shown = [number for number in range(count) if begin <= number / rate < end]
    try:
        part = frames_of_part(start, duration, rate, count)
    except InputError as error:
        assert not shown or end * rate > count
        assert str(error).startswith("start: " if begin * rate > count - 1 else "duration: ")
    else:
        assert list(part) == shown


def test_a_part_behind_the_end_says_how_long_the_driver_is() -> None:
    with pytest.raises(InputError, match=r"^start: 12\.5 s lies behind the end: the driver lasts 10 s \(250 frames\)$"):
        frames_of_part(12.5, None, Fraction(25), 250)
    with pytest.raises(InputError, match=r"^start: frame 250 lies behind the end"):
        frames_of_part("250f", "1f", Fraction(25), 250)
    with pytest.raises(InputError, match=r"^duration: the part would end at 13 s, but the driver lasts 10 s .*shorten"):
        frames_of_part(8.0, 5.0, Fraction(25), 250)
    with pytest.raises(InputError, match=r"^duration: 0\.001 s holds no frame at 25 frames a second"):
        frames_of_part(0.01, 0.001, Fraction(25), 250)
