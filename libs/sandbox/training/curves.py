"""The curves of all kept networks as one picture, drawn from their lock."""

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from libs.files.atomic_write import atomic_write
from libs.sandbox.trained import kept_networks

_WIDTH, _HEIGHT, _MARGIN = 460, 300, 44
_COLOURS = ("#c44e52", "#4c72b0", "#55a868", "#8172b2", "#ccb974")
_SHOWN: dict[str, tuple[str, ...]] = {
    "autoencoder": ("psnr", "psnr_first"),
    "decoder": ("sharpness", "loss"),
    "transformer": ("first_step", "sampled"),
    "detector": ("found", "false_boxes"),
    "pose": ("pck_body", "pck_feet", "pck_face", "pck_hands", "pck_body_degraded"),
}


def write_curves(weights: Path, path: Path) -> None:
    """Write a PNG with one panel for each network in ``weights``: its figures over the steps of training."""
    lock = kept_networks(weights)
    names = [name for name in _SHOWN if name in lock]
    sheet = Image.new("RGB", (_WIDTH * 2, _HEIGHT * -(-len(names) // 2)), "white")
    for index, name in enumerate(names):
        panel = _panel(name, lock[name]["curve"], lock[name]["core_seconds"])
        sheet.paste(panel, (_WIDTH * (index % 2), _HEIGHT * (index // 2)))
    with atomic_write(path) as temporary:
        sheet.save(temporary, format="PNG")


def _panel(name: str, curve: list[dict[str, float]], core_seconds: float) -> Image.Image:
    panel = Image.new("RGB", (_WIDTH, _HEIGHT), "white")
    draw = ImageDraw.Draw(panel)
    lines = {key: [(point["step"], point[key]) for point in curve if key in point] for key in _SHOWN[name]}
    lines = {key: points for key, points in lines.items() if points}
    values = np.array([value for points in lines.values() for _, value in points] or [0.0])
    low, high = float(values.min()), float(max(values.max(), values.min() + 1e-6))
    steps = max(point["step"] for point in curve)
    across, down = _WIDTH - 2 * _MARGIN, _HEIGHT - 2 * _MARGIN

    def place(step: float, value: float) -> tuple[float, float]:
        return _MARGIN + across * step / steps, _HEIGHT - _MARGIN - down * (value - low) / (high - low)

    draw.rectangle((_MARGIN, _MARGIN, _WIDTH - _MARGIN, _HEIGHT - _MARGIN), outline="#bbbbbb")
    draw.text((_MARGIN, 8), f"{name}: {steps:,} steps, {core_seconds:,.0f} core seconds", fill="black")
    for value in (low, high):
        draw.text((4, place(0, value)[1] - 6), f"{value:.3g}", fill="#555555")
    for number, (key, points) in enumerate(lines.items()):
        draw.line([place(*point) for point in points], fill=_COLOURS[number], width=2)
        draw.text((_MARGIN + 82 * number, _HEIGHT - 24), key, fill=_COLOURS[number])
    return panel
