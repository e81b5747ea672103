"""What `make ui` leaves out of Dagster's output, and what it must not."""

from orchestration.laptop.quiet_output import IDLE_LINE_SECONDS, quiet_lines

SENSORS = "2026-11-30 05:48:14 +0000 - dagster.daemon.SensorDaemon -"
COLOURED = "\x1b[32m2026-11-30 05:48:14 +0000\x1b[0m - dagster.daemon.SensorDaemon - \x1b[34mINFO\x1b[0m -"
IDLE = [
    f"{SENSORS} INFO - Checking for new runs for sensor: lora_watch\n",
    f"{COLOURED} Sensor inbox_sensor skipped: nothing new in the inbox\n",
    f"{SENSORS} INFO - Sensor input_watch skipped: 0 new or changed files, nothing replaced\n",
]
TELLING = [
    f"{SENSORS} INFO - Completed launch of run 1 for inbox_sensor\n",
    f"{SENSORS} INFO - Sensor input_watch skipped: 2 new or changed files, nothing replaced\n",
    f"{SENSORS} ERROR - Sensor daemon caught an error for sensor inbox_sensor\n",
    "Traceback (most recent call last):\n",
    f"{SENSORS} INFO - Sensor inbox_sensor skipped: 3 documents wait for media\n",
]


def test_what_happened_is_shown_and_what_did_not_is_left_out() -> None:
    mixed = [line for pair in zip(IDLE, TELLING, strict=False) for line in pair] + TELLING[len(IDLE) :]
    assert list(quiet_lines(mixed, clock=lambda: 0.0)) == TELLING


def test_an_idle_hour_is_about_a_line_a_minute() -> None:
    seconds = iter(range(0, 100_000, 5))  # a sensor's line every five seconds
    idle = (IDLE[number % 3] for number in range(720))  # an hour
    shown = list(quiet_lines(idle, clock=lambda: float(next(seconds))))
    assert 25 <= len(shown) <= 3600 / IDLE_LINE_SECONDS
    assert all("nothing new" in line for line in shown)
