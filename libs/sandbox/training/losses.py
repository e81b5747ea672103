"""What makes two clips alike, and measures of how alike and how sharp they are."""

import torch
import torch.nn.functional as F  # noqa: N812 - the customary name


def reconstruction_loss(made: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    """Mean differences of colours, edges, coarse tones, hues and motion; videos [B, 3, T, H, W] in [-1, 1]."""
    error = made - wanted
    edges = (error[..., 1:] - error[..., :-1]).abs().mean() + (error[..., 1:, :] - error[..., :-1, :]).abs().mean()
    coarse = F.avg_pool2d(error.flatten(1, 2), 4).abs().mean()
    hue = (error - error.mean(dim=1, keepdim=True)).abs().mean()  # colour is learned last
    loss = error.abs().mean() + 0.5 * edges + 0.5 * coarse + hue
    if error.shape[2] > 1:
        loss = loss + 0.3 * (error[:, :, 1:] - error[:, :, :-1]).abs().mean()
    return loss


def laplacian(frames: torch.Tensor) -> torch.Tensor:
    """Second differences of pictures [..., H, W], without the border."""
    inner = frames[..., 1:-1, 1:-1]
    return 4 * inner - frames[..., :-2, 1:-1] - frames[..., 2:, 1:-1] - frames[..., 1:-1, :-2] - frames[..., 1:-1, 2:]


def psnr(made: torch.Tensor, wanted: torch.Tensor) -> float:
    """Mean over clips in decibels; videos in [-1, 1]."""
    squared = ((made.clamp(-1, 1) - wanted) / 2).square().flatten(1).mean(dim=1)
    return float(-10 * torch.log10(squared).mean())


def sharpness(video: torch.Tensor) -> float:
    """Variance of the Laplacian of grey, in squared 8-bit steps: the measure of the product's quality check."""
    grey = 127.5 * (video.clamp(-1, 1) * torch.tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1, 1)).sum(dim=1)
    return float(laplacian(grey).var(dim=(-2, -1)).mean())
