"""Dances: poses over time as sums of smooth waves, in several styles. Deterministic from a seed."""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from libs.sandbox.puppets.skeleton import Hand, Limb, Pose

BEATS_PER_SECOND = 2.0
"""120 beats per minute; sound is made at the same tempo."""

Style = Literal["sway", "wave", "disco", "march", "twist", "robot", "clap", "free"]
STYLES: tuple[Style, ...] = ("sway", "wave", "disco", "march", "twist", "robot", "clap", "free")


@dataclass(frozen=True)
class _Wave:
    centre: float
    amplitude: float
    beats: float = 4.0
    phase: float = 0.0
    overtone: float = 0.0

    def at(self, beat: float) -> float:
        angle = 2 * np.pi * beat / self.beats + self.phase
        return float(self.centre + self.amplitude * (np.sin(angle) + self.overtone * np.sin(2 * angle)))


class Dance:
    """The poses of one dance; equal arguments give equal poses.

    Args:
        seed: of amplitudes and phases.
        style: what kind of dance.
        energy: scales every movement.
        turning: how far the body turns to the sides, degrees.
    """

    def __init__(self, seed: int, style: Style = "sway", energy: float = 1.0, turning: float = 12.0) -> None:
        self.style = style
        self._g = np.random.default_rng(seed)
        self._energy = energy
        self._waves = self._body(turning)
        for number, side in enumerate(("left", "right")):
            self._waves |= {f"{side}_{name}": wave for name, wave in self._arm(number).items()}
            self._waves |= {f"{side}_{name}": wave for name, wave in self._leg(number).items()}
        self._fingers = {side: self._finger_waves() for side in ("left", "right")}

    def pose(self, seconds: float) -> Pose:
        """The pose at a time."""
        beat = seconds * BEATS_PER_SECOND
        if self.style == "robot":  # holds every half beat, and moves quickly in between
            step = np.floor(2 * beat)
            moved = np.clip(1.25 * (2 * beat - step), 0, 1)
            beat = (step + moved**2 * (3 - 2 * moved)) / 2
        value = {name: wave.at(beat) for name, wave in self._waves.items()}
        limbs = {
            f"{side}_{limb}": Limb(
                *(
                    value.pop(f"{side}_{limb}_{part}")
                    for part in ("upper", "upper_front", "lower", "lower_front", "end")
                )
            )
            for side in ("left", "right")
            for limb in ("arm", "leg")
        }
        hands = {}
        for side in ("left", "right"):
            roll = float(np.clip(value.pop(f"{side}_roll"), -1, 1))
            curl = [float(np.clip(wave.at(beat), 0, 1)) for wave in self._fingers[side]]
            hands[f"{side}_hand"] = Hand(roll=roll if abs(roll) > 0.25 else 0.25, curl=tuple(curl))  # type: ignore[arg-type]
        value["mouth"], value["smile"] = (float(np.clip(value[name], 0, 1)) for name in ("mouth", "smile"))
        value["lift"] = max(value["lift"], 0.0)
        blink = (beat + self._blink) % 7.0
        value["blink"] = float(max(0.0, 1 - abs(blink - 0.25) / 0.25)) if blink < 0.5 else 0.0
        return Pose(**value, **limbs, **hands)  # type: ignore[arg-type]

    def _wave(
        self, centre: float, amplitude: float, beats: float = 4.0, phase: float = 0.0, overtone: float = 0.0
    ) -> _Wave:
        g = self._g
        size = amplitude * self._energy * g.uniform(0.75, 1.15)
        return _Wave(centre, size, beats, phase + g.uniform(-0.5, 0.5), overtone * g.uniform(0.5, 1.2))

    def _body(self, turning: float) -> dict[str, _Wave]:
        g, wave = self._g, self._wave
        self._blink = float(g.uniform(0, 7))
        bounce = 0.03 if self.style in {"disco", "march"} else 0.0
        twist = 26.0 if self.style == "twist" else 0.0
        return {
            "x": wave(0.0, 0.028, 4),
            "lift": wave(0.0, bounce, 1, 1.0),
            "yaw": wave(g.uniform(-0.6, 0.6) * turning, 0.5 * turning + twist, g.choice((4, 8)), 0.3),
            "lean": wave(0.0, 7.0, 4, np.pi),
            "shoulder_roll": wave(0.0, 6.0, 2, 0.5),
            "hip_roll": wave(0.0, 7.0, 4, 0.2),
            "head_yaw": wave(0.0, 16.0, 8),
            "head_pitch": wave(0.0, 9.0, 4),
            "head_roll": wave(0.0, 9.0, 4, 0.6),
            "mouth": wave(0.3, 0.4, 2),
            "smile": wave(0.6, 0.3, 8),
        }

    def _arm(self, number: int) -> dict[str, _Wave]:
        g, wave = self._g, self._wave
        opposite = np.pi * number * (self.style not in {"wave", "clap"})
        rest = {
            "sway": (40, 20, 26, 30, 95, 32, 35, 22),
            "wave": (105, 22, 12, 16, 150, 30, 20, 20),
            "disco": (80, 55, 25, 25, 105, 60, 40, 30),
            "march": (24, 14, 70, 30, 80, 30, 80, 18),
            "twist": (48, 14, 40, 30, 92, 20, 62, 30),
            "robot": (78, 30, 14, 16, 100, 68, 25, 22),
            "clap": (52, 18, 62, 14, 104, 16, 112, 26),
            "free": tuple(
                g.uniform(low, high)
                for low, high in ((15, 130), (10, 45), (0, 70), (5, 35), (30, 160), (15, 60), (0, 110), (5, 45))
            ),
        }[self.style]
        upper, upper_size, front, front_size, lower, lower_size, lower_front, lower_front_size = rest
        beats = float(g.choice((2, 4)))
        return {
            "arm_upper": wave(upper, upper_size, beats, opposite),
            "arm_upper_front": wave(front, front_size, 4, opposite + 0.8),
            "arm_lower": wave(lower, lower_size, beats, opposite + 0.4, 0.2),
            "arm_lower_front": wave(lower_front, lower_front_size, 4, opposite + 1.0),
            "arm_end": wave(4.0, 16.0, 2, opposite + 2.0),
            "roll": _Wave(
                float(g.choice((0.9, 0.8, 0.6, -0.7))),
                float(g.uniform(0, 0.5)),
                float(g.choice((4, 8))),
                g.uniform(0, 6),
            ),
        }

    def _leg(self, number: int) -> dict[str, _Wave]:
        wave = self._wave
        phase = np.pi * number
        march = self.style == "march"
        return {
            "leg_upper": wave(24.0 if march else 13.0, 18.0 if march else 10.0, 4, phase),
            "leg_upper_front": wave(55.0 if march else 20.0, 20.0, 4, phase),
            "leg_lower": wave(6.0, 7.0, 2 if not march else 4, phase + 0.4),
            "leg_lower_front": wave(0.0, 25.0, 4, phase + 0.3),
            "leg_end": wave(4.0, 9.0, 4, phase + 1.2),
        }

    def _finger_waves(self) -> list[_Wave]:
        g = self._g
        shape = (
            (0.1,) * 5,
            (0.1,) * 5,
            (0.75, 0.9, 0.9, 0.9, 0.9),
            (0.8, 0.05, 0.05, 0.9, 0.9),
            (0.7, 0.05, 0.9, 0.9, 0.9),
        )[g.integers(5)]
        beats = float(g.choice((4, 8, 16)))
        amplitude = float(g.choice((0.05, 0.05, 0.35)))
        return [_Wave(centre, amplitude, beats, 0.4 * finger) for finger, centre in enumerate(shape)]


def random_dance(generator: np.random.Generator) -> Dance:
    """A dance of any style."""
    style = STYLES[generator.integers(len(STYLES))]
    turning = float(generator.choice((5.0, 15.0, 35.0, 60.0), p=(0.25, 0.3, 0.28, 0.17)))
    return Dance(int(generator.integers(1 << 30)), style, float(generator.uniform(0.7, 1.35)), turning)
