"""What the transformer learns from, computed once: latents of clips and references, and the drawn poses' features."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import cv2
import numpy as np
import torch

from libs.pose.draw import DrawingStyle, draw_pose
from libs.pose.fitting.framing import resize_crop_drawing
from libs.sandbox.training import folded
from libs.sandbox.training.autoencoder import to_video
from libs.sandbox.training.data import UPRIGHT, Clips, drawable
from libs.sandbox.training.transformer_start import FROZEN_POSE_STAGES

_BATCH = 4
_MASKED_SHARE = 0.2
_DRAWING_FACTOR = 2.25  # poses are drawn at the size of a reference picture and then reduced
_STYLES = (
    (0.4, DrawingStyle()),
    (0.35, DrawingStyle(face="faded", head="faded")),
    (0.15, DrawingStyle(face="none")),
    (0.1, DrawingStyle(face="none", head="none")),
)


@dataclass(frozen=True, eq=False)
class Latents:
    """Of one shard, in half precision, raw (not normalised).

    Attributes:
        clip: [N, 16, F, h, w].
        reference: [N, 32, 1, h, w]: of the reference and of its mask.
        poses: [N, 16, F', H/4, W/4] features of the drawn poses.
        reference_pose: [N, 16, 1, H/4, W/4].
        light: [N].
    """

    clip: torch.Tensor
    reference: torch.Tensor
    poses: torch.Tensor
    reference_pose: torch.Tensor
    light: torch.Tensor

    def save(self, path: Path) -> None:
        """Write a file that :meth:`load` reads."""
        torch.save(vars(self), path)

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read what :meth:`save` wrote."""
        return cls(**torch.load(path, weights_only=True, mmap=True))


@torch.no_grad()
def pose_features(transformer: Any, drawings: torch.Tensor) -> torch.Tensor:
    """What the frozen stages of the pose encoder give for [B, 3, T, H, W] in [-1, 1].

    Their residual units add nothing, so that their samplers alone are run.
    """
    encoder = transformer.input_hint_block
    features: torch.Tensor = encoder.conv_in(drawings)
    for block in encoder.down_blocks[:FROZEN_POSE_STAGES]:
        features = block.downsamplers[0](features)
    return features


def draw_poses(points: np.ndarray, height: int, width: int, style: DrawingStyle) -> np.ndarray:
    """The drawings of stored ``points`` [T, 128, 3]: uint8 [T, height, width, 3]."""
    record = drawable(points)
    large = (round(_DRAWING_FACTOR * height), round(_DRAWING_FACTOR * width))
    drawn = (draw_pose(record, frame, *large, style) for frame in range(len(record)))
    return np.stack([resize_crop_drawing(one, height, width) for one in drawn])


def encode_shards(data: Path, folder: Path, autoencoder: Any, transformer: Any) -> Iterator[Path]:
    """Encode the shards that are there and not encoded yet, yielding each."""
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    folder.mkdir(parents=True, exist_ok=True)
    for path in sorted(data.glob("*.npz")):
        target = folder / f"{path.stem}.pt"
        if not target.exists():
            _encode(Clips.load(path), autoencoder, transformer).save(target)
        yield target


@torch.no_grad()
def _encode(clips: Clips, autoencoder: Any, transformer: Any) -> Latents:
    parts: dict[str, list[torch.Tensor]] = {name: [] for name in ("clip", "reference", "poses", "reference_pose")}
    height, width = clips.frames.shape[2:4]
    g = np.random.default_rng(int(clips.light.sum()) + height)
    for first in range(0, len(clips.frames), _BATCH):
        frames, points = clips.frames[first : first + _BATCH], clips.points[first : first + _BATCH]
        references, masks = frames[:, :1].copy(), np.zeros_like(frames[:, :1])
        for index in range(len(frames)):
            if g.random() < _MASKED_SHARE:
                cut_out(g, references[index, 0], masks[index, 0])
        styles = [_STYLES[g.choice(len(_STYLES), p=[share for share, _ in _STYLES])][1] for _ in frames]
        drawings = [draw_poses(one[1:], height, width, style) for one, style in zip(points, styles, strict=True)]
        reference_drawings = [draw_poses(one[:1], height, width, DrawingStyle(face="none")) for one in points]
        image, mask = (folded.encode(autoencoder, to_video(pictures)) for pictures in (references, masks))
        parts["clip"].append(folded.encode(autoencoder, to_video(frames[:, 1:])).half())
        parts["reference"].append(torch.cat((image, mask), dim=1).half())
        parts["poses"].append(pose_features(transformer, to_video(np.stack(drawings))).half())
        parts["reference_pose"].append(pose_features(transformer, to_video(np.stack(reference_drawings))).half())
    return Latents(**{name: torch.cat(rows) for name, rows in parts.items()}, light=torch.from_numpy(clips.light))


def cut_out(g: np.random.Generator, picture: np.ndarray, mask: np.ndarray) -> None:
    """Leave a rectangle of ``picture``, as if it had been moved into a larger one; ``mask`` is white around it."""
    height, width = mask.shape[:2]
    share = g.uniform(0.55, 0.95)
    top, left = (int(side * g.uniform(-0.15, 1.0 - 0.85 * share)) for side in (height, width))
    inside = np.zeros((height, width), bool)
    inside[max(top, 0) : max(0, top + int(share * height)), max(left, 0) : max(0, left + int(share * width))] = True
    picture[~inside] = 0
    mask[~inside] = 255


def statistics(latents: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and standard deviation of each channel, [16] each."""
    values = latents.float().transpose(0, 1).flatten(1)
    return values.mean(dim=1), values.std(dim=1)


def measured_statistics(folder: Path) -> tuple[torch.Tensor, torch.Tensor]:
    """:func:`statistics` of the first upright training clips in ``folder``: those that training normalises by."""
    return statistics(some_latents(folder))


def some_latents(folder: Path) -> torch.Tensor:
    """Raw latents of the first upright training clips in ``folder``, [N, 16, F, h, w]."""
    paths = sorted(folder.glob(f"training-{UPRIGHT.name}-*.pt"))[:4]
    if not paths:
        raise FileNotFoundError(f"{folder}: holds no latents; run `python -m libs.sandbox.training latents` first")
    return torch.cat([Latents.load(path).clip for path in paths])
