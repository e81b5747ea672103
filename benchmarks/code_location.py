"""How long the code location takes to load: in a fresh process, against Dagster alone.

Prints the median of several loads, their ratio to a bare ``import dagster``, and whether the goal of 2 s is met.
"""

import statistics
import subprocess
import sys
import time

GOAL_SECONDS = 2.0
RUNS = 5


def seconds_for(code: str) -> float:
    """Median wall time in seconds of a fresh interpreter running ``code``."""
    times = []
    for _ in range(RUNS):
        started = time.perf_counter()
        subprocess.run([sys.executable, "-c", code], check=True)
        times.append(time.perf_counter() - started)
    return statistics.median(times)


def main() -> None:
    """Measure and print."""
    bare = seconds_for("import dagster")
    location = seconds_for("import orchestration.definitions")
    print(f"import dagster:           {bare:.2f} s")
    print(f"load the code location:   {location:.2f} s, {location / bare:.2f} x a bare Dagster")
    print(f"goal of {GOAL_SECONDS:.0f} s: {'met' if location < GOAL_SECONDS else 'missed'}")


if __name__ == "__main__":
    main()
