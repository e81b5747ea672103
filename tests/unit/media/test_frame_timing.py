import random
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from libs.media.video.frame_timing import STANDARD_RATES, grid_length, on_constant_grid, plan_frame_timing

positive_steps = st.lists(st.integers(1, 400), min_size=1, max_size=60)


def times_of(steps):
    times, now = [Fraction(0)], 0
    for step in steps:
        now += step
        times.append(Fraction(now, 1000))
    return times


@given(st.sampled_from(STANDARD_RATES), st.integers(2, 3000), st.sampled_from([1000, 90000, 12800]))
def test_a_constant_rate_is_found_again_from_rounded_times(rate, count, ticks):
    times = [Fraction(round(index / rate * ticks), ticks) for index in range(count)]
    timing = plan_frame_timing(times, [rate])
    assert (timing.frame_rate, timing.variable) == (rate, False)


@given(st.sampled_from([24, 25, 30, 50, 60]), st.integers(300, 2000))
def test_a_constant_rate_is_found_without_any_declaration(rate, count):
    timing = plan_frame_timing([Fraction(index, rate) for index in range(count)], [None])
    assert (timing.frame_rate, timing.variable) == (rate, False)


def test_a_wrong_declaration_is_not_believed():
    timing = plan_frame_timing([Fraction(index, 24) for index in range(100)], [Fraction(90000), Fraction(30)])
    assert (timing.frame_rate, timing.variable) == (24, False)


def test_dropped_frames_make_a_video_variable_at_its_true_rate():
    times = [Fraction(index, 30) for index in range(300) if index % 50 != 25]
    timing = plan_frame_timing(times, [Fraction(len(times), 10)])
    assert (timing.frame_rate, timing.variable) == (30, True)
    assert grid_length(timing, times) == 300


GRID_RATES = [
    *(Fraction(rate) for rate in (24, 25, 30, 48, 50, 60, 120)),
    *(Fraction(nominal * 1000, 1001) for nominal in (24, 30, 48, 60, 120)),
]


@given(st.sampled_from(GRID_RATES), st.booleans(), st.integers(900, 2000), st.data())
def test_a_grid_in_whole_milliseconds_with_missing_frames_has_its_rate_and_length(rate, declared, count, data):
    missing = data.draw(st.sets(st.integers(1, count - 2), min_size=1, max_size=count // 4))
    kept = [index for index in range(count) if index not in missing]
    times = [Fraction(round(index / rate * 1000), 1000) for index in kept]
    timing = plan_frame_timing(times, [rate if declared else None])
    assert timing.frame_rate == rate
    assert timing.variable
    assert grid_length(timing, times) == count


@pytest.mark.parametrize("rate", GRID_RATES, ids=str)
def test_of_a_short_grid_the_declared_rate_is_believed(rate):
    times = [Fraction(round(index / rate * 1000), 1000) for index in range(40) if index != 17]
    timing = plan_frame_timing(times, [rate])
    assert (timing.frame_rate, timing.variable, grid_length(timing, times)) == (rate, True, 40)


def test_the_rate_of_a_grid_that_no_frames_fill_is_not_believed():
    times = [Fraction(index, 30) for index in range(60) if index != 25]
    timing = plan_frame_timing(times, [Fraction(120), Fraction(240)])
    assert (timing.frame_rate, grid_length(timing, times)) == (30, 60)


def test_a_recording_without_any_grid_has_the_rate_near_its_typical_distance():
    generator = random.Random(3)
    times, now = [Fraction(0)], 0
    for _ in range(200):
        now += generator.choice([11, 15, 16, 17, 17, 17, 18, 45])
        times.append(Fraction(now, 1000))
    timing = plan_frame_timing(times, [Fraction(1000)])
    assert timing.variable
    assert timing.frame_rate in (60, Fraction(60_000, 1001))


def test_two_frames_with_one_time_are_both_shown_where_the_next_place_is_empty():
    places = [0, 1, 2, 2, 4, 5, 6, 6]
    times = [Fraction(round(place * 1000 / 24), 1000) for place in places]
    timing = plan_frame_timing(times, [Fraction(24)])
    assert timing.frame_rate == 24
    shown = [index for index, _ in on_constant_grid(timing, [(time, index) for index, time in enumerate(times)])]
    assert shown == list(range(8))
    assert grid_length(timing, times) == 8


@given(positive_steps)
def test_the_grid_keeps_timing_and_order(steps):
    times = times_of(steps)
    timing = plan_frame_timing(times, [])
    shown = list(on_constant_grid(timing, [(time, index) for index, time in enumerate(times)]))
    assert len(shown) == grid_length(timing, times)
    indices = [index for index, _ in shown]
    assert indices == sorted(indices)
    assert [repeated for _, repeated in shown] == [
        position > 0 and indices[position] == indices[position - 1] for position in range(len(indices))
    ]
    # What is shown was due at that moment: never later than half a period ahead, never older than the newest due.
    half = 1 / (2 * timing.frame_rate)
    for position, index in enumerate(indices):
        moment = position / timing.frame_rate
        assert times[index] <= moment + half
        assert index == len(times) - 1 or times[index + 1] > moment - half


def test_two_frames_hours_apart_have_a_rate():
    timing = plan_frame_timing([Fraction(0), Fraction(36_000)], [])
    assert timing.frame_rate > 0


@pytest.mark.parametrize(("slow_steps", "variable"), [(3, False), (8, True)])
def test_a_clock_that_strays_by_half_a_period_is_variable_though_no_frame_is_missing(slow_steps, variable):
    times = times_of([40] * 20 + [32] * slow_steps + [48] * slow_steps + [40] * 20)
    timing = plan_frame_timing(times, [Fraction(25)])
    assert (timing.frame_rate, timing.variable) == (25, variable)


def test_the_last_frame_is_shown_as_long_as_it_says():
    times = [Fraction(index, 30) for index in range(60) if index != 25]
    timing = plan_frame_timing(times, [], last_duration=Fraction(10, 30))
    assert timing.variable
    assert grid_length(timing, times) == 69
    assert len(list(on_constant_grid(timing, ((time, None) for time in times)))) == 69


def test_a_single_frame_lasts_as_long_as_it_says_or_one_period():
    assert plan_frame_timing([Fraction(0)], [Fraction(30)], Fraction(2)).last_duration == 2
    assert plan_frame_timing([Fraction(0)], [Fraction(30)]).last_duration == Fraction(1, 30)
