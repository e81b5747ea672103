"""A contact sheet of held-back clips: reference, poses, sampled frames, true frames, and the autoencoder's answer."""

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from libs.files.atomic_write import atomic_write
from libs.pose.draw import DrawingStyle
from libs.sandbox.puppets.scenes import inside
from libs.sandbox.training import folded
from libs.sandbox.training.data import UPRIGHT, Clips
from libs.sandbox.training.latents import Latents, draw_poses, some_latents
from libs.sandbox.training.losses import psnr, sharpness
from libs.sandbox.training.store import average_of
from libs.sandbox.training.transformer import LatentSpace, plain_batch, sampler_of
from libs.sandbox.training.transformer_start import starting_transformer

_SHOWN = (0, 4, 8)
_ENLARGED = 1.5


def write_sheet(data: Path, folder: Path, autoencoder: Any, path: Path, count: int = 8) -> dict[str, float]:
    """Sample ``count`` held-back clips without guidance, write the sheet, and measure them.

    Returns:
        ``psnr`` and ``psnr_figure`` (within the box around the key-points) of sampled frames, the same of a reference
        that stands still and of the autoencoder, and ``sharpness`` relative to the true frames.
    """
    torch.set_num_threads(1)
    name = sorted(path.stem for path in (folder / "latents").glob(f"held_back-{UPRIGHT.name}-*.pt"))[0]
    latents, clips = Latents.load(folder / "latents" / f"{name}.pt"), Clips.load(data / f"{name}.npz")
    space = LatentSpace.measure(autoencoder, some_latents(folder / "latents"))
    transformer = starting_transformer()
    transformer.load_state_dict(average_of(folder, "transformer"))
    sampler = sampler_of(transformer, space, autoencoder)
    batch = plain_batch(sampler, latents, np.arange(count))
    noise = torch.randn(batch.clean.shape, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        sampled = folded.decode(autoencoder, space.raw(sampler.sample(batch, noise))).clamp(-1, 1)
        answered = folded.decode(autoencoder, space.raw(batch.clean)).clamp(-1, 1)
    true = torch.from_numpy(clips.frames[:count, 1:]).permute(0, 4, 1, 2, 3).float() / 127.5 - 1
    still = torch.from_numpy(clips.frames[:count, :1]).permute(0, 4, 1, 2, 3).float() / 127.5 - 1
    still = still.expand_as(true)
    _write(path, clips, count, sampled, answered)
    boxes = [_figure_box(clips.keypoints[index, 1:], *true.shape[3:]) for index in range(count)]
    figures = {}
    for title, video in (("sampled", sampled), ("still", still), ("autoencoder", answered)):
        figures[f"psnr_{title}"] = psnr(video, true)
        parts = [
            psnr(a[None][..., rows, columns], b[None][..., rows, columns])
            for a, b, (rows, columns) in zip(video, true, boxes, strict=True)
        ]
        figures[f"psnr_figure_{title}"] = float(np.mean(parts))
    figures["sharpness"] = sharpness(sampled) / sharpness(true)
    figures["sharpness_autoencoder"] = sharpness(answered) / sharpness(true)
    return figures


def _figure_box(keypoints: np.ndarray, height: int, width: int) -> tuple[slice, slice]:
    seen = keypoints[inside(keypoints, width, height)]
    low, high = np.maximum(seen.min(axis=0) - 6, 0).astype(int), (seen.max(axis=0) + 6).astype(int)
    return slice(low[1], high[1]), slice(low[0], high[0])


def _write(path: Path, clips: Clips, count: int, sampled: torch.Tensor, answered: torch.Tensor) -> None:
    height, width = clips.frames.shape[2:4]
    rows = []
    for index in range(count):
        poses = draw_poses(clips.points[index, 1:], height, width, DrawingStyle())
        made = ((sampled[index] + 1) * 127.5).byte().permute(1, 2, 3, 0).numpy()
        answer = ((answered[index] + 1) * 127.5).byte().permute(1, 2, 3, 0).numpy()
        frames = [clips.frames[index, 0], *(part[frame] for part in (poses, made) for frame in _SHOWN)]
        frames += [clips.frames[index, 1 + frame] for frame in _SHOWN] + [answer[_SHOWN[1]]]
        rows.append(np.concatenate(frames, axis=1))
    sheet = cv2.resize(np.concatenate(rows), None, fx=_ENLARGED, fy=_ENLARGED, interpolation=cv2.INTER_CUBIC)
    with atomic_write(path) as temporary:
        temporary.write_bytes(cv2.imencode(".png", sheet[..., ::-1])[1].tobytes())
