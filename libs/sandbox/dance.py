"""A smooth dance: poses over time as sums of sinusoids. Deterministic from a seed; numpy only.

Phases and amplitudes come from the seed, within ranges in which no two coloured markers ever cover each other: hands
stay away from the head and inside the picture, feet apart. What does not belong here: geometry (``skeleton``) and
drawing (``puppet``).
"""

from dataclasses import dataclass

import numpy as np

from libs.sandbox.skeleton import Pose

BEATS_PER_SECOND = 2.0
"""120 beats per minute: the sound of the driving clip uses the same rate."""


@dataclass(frozen=True)
class Wave:
    """centre + amplitude * (sin(2 pi t / beats + phase) + overtone at twice the rate), t in beats."""

    centre: float
    amplitude: float
    beats: float
    phase: float
    overtone: float = 0.0

    def at(self, beat: float) -> float:
        """The value at time ``beat``."""
        angle = 2 * np.pi * beat / self.beats + self.phase
        return float(self.centre + self.amplitude * (np.sin(angle) + self.overtone * np.sin(2 * angle)))


def _waves(seed: int) -> dict[str, Wave]:
    generator = np.random.default_rng(seed)

    def phase(base: float) -> float:
        return base + generator.uniform(-0.35, 0.35)

    def amplitude(base: float) -> float:
        return base * generator.uniform(0.85, 1.1)

    left_arm, right_arm = phase(0.0), phase(np.pi)  # an elbow bends as its arm rises: hands stay in the picture
    return {
        "hips_x": Wave(0.0, amplitude(0.026), 4, phase(0.0)),
        "hips_y": Wave(0.012, amplitude(0.014), 1, phase(1.0)),
        "lean": Wave(0.0, amplitude(6.0), 4, phase(np.pi)),
        "shoulder_roll": Wave(0.0, amplitude(6.0), 2, phase(0.5)),
        "hip_roll": Wave(0.0, amplitude(5.0), 4, phase(0.2)),
        "head_tilt": Wave(0.0, amplitude(7.0), 4, phase(0.6)),
        "head_turn": Wave(0.0, amplitude(0.6), 8, phase(0.0)),
        "mouth": Wave(0.5, amplitude(0.45), 2, phase(0.0)),
        "left_arm": Wave(47.0, amplitude(16.0), 4, left_arm),
        "left_forearm": Wave(98.0, amplitude(26.0), 4, left_arm, 0.25),
        "left_hand": Wave(4.0, amplitude(12.0), 2, phase(2.0)),
        "right_arm": Wave(47.0, amplitude(16.0), 4, right_arm),
        "right_forearm": Wave(98.0, amplitude(26.0), 4, right_arm, 0.25),
        "right_hand": Wave(4.0, amplitude(12.0), 2, phase(2.0 + np.pi)),
        "left_leg": Wave(15.0, amplitude(7.0), 4, phase(0.0)),
        "left_shank": Wave(-7.0, amplitude(6.0), 2, phase(0.4)),
        "left_foot": Wave(4.0, amplitude(7.0), 4, phase(1.2)),
        "right_leg": Wave(15.0, amplitude(7.0), 4, phase(np.pi)),
        "right_shank": Wave(-7.0, amplitude(6.0), 2, phase(0.4 + np.pi)),
        "right_foot": Wave(4.0, amplitude(7.0), 4, phase(1.2 + np.pi)),
    }


class Dance:
    """The poses of one dance; equal seeds give equal poses."""

    def __init__(self, seed: int = 0) -> None:
        self._waves = _waves(seed)

    def pose(self, seconds: float) -> Pose:
        """The pose at a time."""
        beat = seconds * BEATS_PER_SECOND
        return Pose(**{name: wave.at(beat) for name, wave in self._waves.items()})
