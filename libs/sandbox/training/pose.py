"""Trains the detector and the pose network on pictures rendered as they are needed."""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import cv2
import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - the customary name

from libs.pose.networks.crop import CropGeometry, crop_geometry, pose_network_input
from libs.pose.networks.detector import INPUT_SIZE, detections_of
from libs.pose.networks.heatmaps import HEATMAP_HEIGHT, HEATMAP_WIDTH, decode_heatmaps
from libs.sandbox.puppets.scenes import inside
from libs.sandbox.training.muon import Muon
from libs.sandbox.training.pose_networks import GRID, SMALL_SIZE, Detector, PoseNetwork
from libs.sandbox.training.pose_pictures import (
    Picture,
    PicturePool,
    drawn_picture,
    figure_box,
    foreign_picture,
    random_picture,
)
from libs.sandbox.training.runs import Run, Schedule

Network = TypeVar("Network", bound=torch.nn.Module)

_SAVE_EVERY = 50
_BELL = 2.0  # cells: standard deviation of the targets' Gaussians, as in ViTPose's
_HELD_BACK_SEED = (2, 640)
_WRONG_PLACE_SHARE = 0.06
_PEAK_WEIGHT = 4.0  # most of a map is empty, and its peak is what matters
_NORM_BATCHES = 6


@dataclass(frozen=True)
class PoseTraining:
    """Settings of both runs."""

    pose_steps: int = 6000
    detector_steps: int = 1200
    pose_batch: int = 8
    detector_batch: int = 16
    learning_rate: float = 3e-3
    seed: int = 11


@dataclass(frozen=True, eq=False)
class PoseSample:
    """A crop as the network sees it, where it lies, and its key-points in the picture's pixels."""

    crop: np.ndarray
    geometry: CropGeometry
    keypoints: np.ndarray
    visible: np.ndarray


def pose_sample(g: np.random.Generator, picture: Picture) -> PoseSample:
    """The crop around the main figure, as an imperfect detector would give it; now and then of something else."""
    height, width = picture.pixels.shape[:2]
    keypoints = picture.figures[-1] if picture.figures else np.full((133, 2), -1e3)
    box = figure_box(keypoints, width, height) if picture.figures else None
    visible = inside(keypoints, width, height)
    if box is None:
        box, visible = _anywhere(g, width, height), np.zeros(133, bool)
    elif g.random() < _WRONG_PLACE_SHARE:
        box = np.array([0.0, 0.0, width, height])
    side = np.tile(box[2:] - box[:2], 2)
    box = box + side * g.normal(0, 0.05, 4)
    geometry = crop_geometry(np.append(box, 1.0), width, height)
    return PoseSample(pose_network_input(picture.pixels, geometry), geometry, keypoints, visible)


def _anywhere(g: np.random.Generator, width: int, height: int) -> np.ndarray:
    low, high = np.sort(g.uniform(0, 1, (2, 2)), axis=0)
    if g.random() < 0.5 or (high - low).min() < 0.2:
        low, high = np.zeros(2), np.ones(2)
    return np.concatenate([low, high]) * (width, height, width, height)


def target_heatmaps(sample: PoseSample) -> np.ndarray:
    """Gaussians where the product's decoding finds the key-points again: float32 [133, 64, 48]."""
    grid = np.array([HEATMAP_WIDTH, HEATMAP_HEIGHT])
    cells = (sample.keypoints - (sample.geometry.centre - sample.geometry.size / 2)) / (sample.geometry.size / grid)
    seen = sample.visible & (cells > -1).all(axis=1) & (cells < grid).all(axis=1)
    across = np.exp(-((np.arange(HEATMAP_WIDTH) - cells[:, :1]) ** 2) / (2 * _BELL**2))
    down = np.exp(-((np.arange(HEATMAP_HEIGHT) - cells[:, 1:]) ** 2) / (2 * _BELL**2))
    maps: np.ndarray = (seen[:, None, None] * down[:, :, None] * across[:, None, :]).astype(np.float32)
    return maps


def train_pose_network(folder: Path, settings: PoseTraining, kept: Path | None = None) -> None:
    """Train, or go on; the state lies in ``folder``, or else in ``kept`` weights."""
    clean, degraded, foreign = (
        [pose_sample(g, picture) for g, picture in held_back_pictures(48, kind)]
        for kind in (drawn_picture, random_picture, foreign_picture)
    )

    def batch(g: np.random.Generator, pool: PicturePool) -> tuple[torch.Tensor, ...]:
        samples = [pose_sample(g, picture) for picture in pool.take(settings.pose_batch)]
        crops, maps = np.stack([one.crop for one in samples]), np.stack([target_heatmaps(one) for one in samples])
        return torch.from_numpy(crops), torch.from_numpy(maps)

    def loss(network: PoseNetwork, crops: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
        weight = 1 + _PEAK_WEIGHT * wanted
        return 100 * (weight * (network(crops) - wanted).square()).mean()

    def judge(network: PoseNetwork) -> dict[str, float]:
        figures = judge_pose(network, clean)
        return {
            **figures,
            "pck_body_degraded": judge_pose(network, degraded)["pck_body"],
            "score_foreign": judge_scores(network, foreign),
        }

    _train(folder, "pose", PoseNetwork(), settings, settings.pose_steps, batch, loss, judge, kept)


def train_detector(folder: Path, settings: PoseTraining, kept: Path | None = None) -> None:
    """Train, or go on; the state lies in ``folder``, or else in ``kept`` weights."""
    held_back = [picture for _, picture in held_back_pictures(64, random_picture)]

    def batch(_: np.random.Generator, pool: PicturePool) -> tuple[torch.Tensor, ...]:
        pictures = pool.take(settings.detector_batch)
        targets = zip(*map(_grid_targets, pictures), strict=True)
        return tuple(torch.from_numpy(np.stack(part)) for part in ([_small(one) for one in pictures], *targets))

    def loss(network: Detector, pictures: torch.Tensor, middles: torch.Tensor, edges: torch.Tensor) -> torch.Tensor:
        made = network.grid(pictures)
        found = F.binary_cross_entropy_with_logits(made[:, 0], middles, reduction="none")
        share = middles.clamp(min=0.02)
        placed = (made[:, 1:] - edges).abs().sum(dim=1) * (middles > 0.5)
        return (found * (1 + 8 * share)).mean() * 10 + 40 * placed.sum() / (middles > 0.5).sum().clamp(min=1)

    _train(
        folder,
        "detector",
        Detector(),
        settings,
        settings.detector_steps,
        batch,
        loss,
        lambda network: judge_detector(network, held_back),
        kept,
    )


def _train(
    folder: Path,
    name: str,
    network: Network,
    settings: PoseTraining,
    steps: int,
    batch_of: Callable[[np.random.Generator, PicturePool], tuple[torch.Tensor, ...]],
    loss_of: Callable[..., torch.Tensor],
    judge: Callable[[Network], dict[str, float]],
    kept: Path | None,
) -> None:
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    run = Run(folder, name, network, Muon(network.named_parameters(), adam_share=0.5), kept=kept)
    schedule = Schedule(steps, settings.learning_rate)
    g = np.random.default_rng([1, *run.generator_seed(settings.seed)])
    pool = PicturePool(g)
    latest: deque[tuple[torch.Tensor, ...]] = deque(maxlen=_NORM_BATCHES)
    while run.step < steps:
        run.start_clock()
        network.train()
        for _ in range(_SAVE_EVERY):
            latest.append(batch_of(g, pool))
            loss = loss_of(network, *latest[-1])
            run.optimiser.zero_grad()
            loss.backward()
            run.optimiser.step(schedule.rate(run.step))
            run.advance(loss=float(loss.detach()))
        measure_norms(run.average, lambda: [loss_of(run.average, *batch) for batch in latest])
        run.stop_clock()
        run.save(**judge(run.average))  # type: ignore[arg-type]


@torch.no_grad()
def measure_norms(network: torch.nn.Module, forward: Callable[[], object]) -> None:
    """Measure the batch norms' means and variances anew: those of a network whose weights are averaged.

    Args:
        network: is in evaluation mode afterwards.
        forward: calls it with some batches.
    """
    norms = [module for module in network.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the plain mean over the batches
    network.train()
    forward()
    network.eval()


def held_back_pictures(
    count: int, kind: Callable[[np.random.Generator], Picture]
) -> list[tuple[np.random.Generator, Picture]]:
    """Pictures that training never sees, always the same ones, each with its generator."""
    pictures = []
    for number in range(count):
        g = np.random.default_rng([*_HELD_BACK_SEED, number])
        pictures.append((g, kind(g)))
    return pictures


@torch.no_grad()
def judge_pose(network: Callable[[torch.Tensor], torch.Tensor], samples: list[PoseSample]) -> dict[str, float]:
    """Share of key-points within 2 pixels of a picture of 128 x 160, by the product's own decoding."""
    heatmaps = torch.cat([network(torch.from_numpy(sample.crop[None])) for sample in samples]).numpy()
    geometry = [sample.geometry for sample in samples]
    centre, size = (np.stack([getattr(one, name) for one in geometry]) for name in ("centre", "size"))
    found = decode_heatmaps(heatmaps, centre, size)
    wanted = np.stack([sample.keypoints for sample in samples])
    visible = np.stack([sample.visible for sample in samples])
    crop_pixels = size[:, 1] / 1.25  # about the figure's extent; a whole figure has about 140 pixels in 128 x 160
    distance = np.linalg.norm(found[..., :2] - wanted, axis=-1) * (140 / crop_pixels)[:, None]
    figures = dict[str, float]()
    parts = (("body", slice(0, 17)), ("feet", slice(17, 23)), ("face", slice(23, 91)), ("hands", slice(91, 133)))
    for name, rows in parts:
        figures[f"pck_{name}"] = float((distance[:, rows] <= 2.0)[visible[:, rows]].mean())
    figures["score_seen"] = float(found[..., 2][visible].mean())
    figures["score_unseen"] = float(found[..., 2][~visible].mean())
    return figures


@torch.no_grad()
def judge_scores(network: Callable[[torch.Tensor], torch.Tensor], samples: list[PoseSample]) -> float:
    """Mean score of the body's key-points, whatever is there."""
    heatmaps = torch.cat([network(torch.from_numpy(sample.crop[None])) for sample in samples])
    return float(heatmaps[:, :17].flatten(2).amax(dim=2).mean())


@torch.no_grad()
def judge_detector(network: Callable[[torch.Tensor], torch.Tensor], pictures: list[Picture]) -> dict[str, float]:
    """Share of figures found (overlap with a box of at least 0.6), and boxes where nobody is."""
    hits, figures, false = 0, 0, 0
    for picture in pictures:
        height, width = picture.pixels.shape[:2]
        resized = cv2.resize(picture.pixels, (INPUT_SIZE, INPUT_SIZE)).transpose(2, 0, 1) / np.float32(255)
        detections = detections_of(network(torch.from_numpy(resized[None]))[0].numpy(), width, height)
        sure = detections[detections[:, 4] > 0.4][:, :4]
        boxes = [box for box in (figure_box(one, width, height) for one in picture.figures) if box is not None]
        matched = [max((_overlap(one, box) for one in sure), default=0.0) > 0.6 for box in boxes]
        hits, figures = hits + sum(matched), figures + len(boxes)
        false += max(0, len(sure) - len(boxes))
    return {"found": hits / max(figures, 1), "false_boxes": false / len(pictures)}


def _overlap(one: np.ndarray, other: np.ndarray) -> float:
    size = np.minimum(one[2:], other[2:]) - np.maximum(one[:2], other[:2])
    common = float(np.prod(np.maximum(size, 0)))
    areas = [float(np.prod(box[2:] - box[:2])) for box in (one, other)]
    return common / max(sum(areas) - common, 1e-9)


def _small(picture: Picture) -> np.ndarray:
    resized = cv2.resize(picture.pixels, (INPUT_SIZE, INPUT_SIZE), interpolation=cv2.INTER_LINEAR)
    small = cv2.resize(resized, (SMALL_SIZE, SMALL_SIZE), interpolation=cv2.INTER_AREA)
    return (small.transpose(2, 0, 1) / np.float32(255)).astype(np.float32)


def _grid_targets(picture: Picture) -> tuple[np.ndarray, np.ndarray]:
    """How much of a figure's middle each cell is [32, 32], and distances to its box's edges [4, 32, 32]."""
    height, width = picture.pixels.shape[:2]
    middles, edges = np.zeros((GRID, GRID), np.float32), np.zeros((4, GRID, GRID), np.float32)
    places = (np.arange(GRID) + 0.5) / GRID
    for keypoints in picture.figures:
        box = figure_box(keypoints, width, height)
        if box is None:
            continue
        x1, y1, x2, y2 = box / (width, height, width, height)
        middle_x, middle_y = (x1 + x2) / 2, (y1 + y2) / 2
        bell = np.exp(-(((places[None] - middle_x) * GRID) ** 2 + ((places[:, None] - middle_y) * GRID) ** 2) / 2)
        distances = (places[None] - x1, places[:, None] - y1, x2 - places[None], y2 - places[:, None])
        nearer = bell > middles
        for edge, distance in zip(edges, distances, strict=True):
            edge[nearer] = np.broadcast_to(distance, (GRID, GRID))[nearer]
        middles = np.maximum(middles, bell.astype(np.float32))
    return middles, edges
