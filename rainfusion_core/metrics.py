"""How far one clip is from another: PSNR, SSIM, LPIPS, flicker of the static part, and cosine similarity of latents.

All of them take lossless frames, (frames, height, width, 3) float in [0, 1], never re-encoded video.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from rainfusion_core.errors import RainfusionError

Perceptual = Callable[[Tensor, Tensor], float]  # two (1, 3, height, width) in [-1, 1] -> distance

STATIC = 2 / 255  # a pixel that changes less from frame to frame counts as static


@dataclass(frozen=True, kw_only=True)
class ClipMetrics:
    """One clip against its reference.

    Attributes:
        psnr: decibels over all pixels of the clip; infinite if the clips are equal.
        ssim, lpips: means over the frames; `lpips` is None if it was not asked for.
        flicker, reference_flicker: see `flicker`; None if no pixel of the reference is static.
        latent_cosine: None if the latents are unknown.
    """

    psnr: float
    psnr_frames: tuple[float, ...]
    ssim: float
    ssim_frames: tuple[float, ...]
    lpips: float | None
    lpips_frames: tuple[float, ...]
    flicker: float | None
    reference_flicker: float | None
    latent_cosine: float | None


def clip_metrics(
    reference: np.ndarray,
    frames: np.ndarray,
    *,
    latents: tuple[np.ndarray | None, np.ndarray | None] = (None, None),
    perceptual: Perceptual | None = None,
) -> ClipMetrics:
    """All metrics of `frames` against `reference`, which has the same shape.

    Args:
        latents: the final latents of the reference and of the clip.
        perceptual: what `lpips_network` returns; None leaves LPIPS out.
    """
    similar = ssim(reference, frames)
    distances = lpips(reference, frames, perceptual) if perceptual else ()
    first, second = latents
    return ClipMetrics(
        psnr=psnr(reference, frames),
        psnr_frames=tuple(psnr(a, b) for a, b in zip(reference, frames, strict=True)),
        ssim=float(np.mean(similar)),
        ssim_frames=similar,
        lpips=float(np.mean(distances)) if distances else None,
        lpips_frames=distances,
        flicker=flicker(frames, reference),
        reference_flicker=flicker(reference, reference),
        latent_cosine=None if first is None or second is None else cosine(first, second),
    )


def psnr(reference: np.ndarray, frames: np.ndarray) -> float:
    """Peak signal-to-noise ratio in decibels over all values given, data range 1; infinite for equal ones."""
    error = float(np.square(np.subtract(reference, frames, dtype=np.float64)).mean())
    return -10 * math.log10(error) if error > 0 else math.inf


def ssim(reference: np.ndarray, frames: np.ndarray) -> tuple[float, ...]:
    """Structural similarity of every frame: Gaussian window of 11 pixels, sigma 1.5, data range 1."""
    from torchmetrics.functional.image import structural_similarity_index_measure

    values: list[float] = []
    for a, b in zip(_images(reference), _images(frames), strict=True):  # a frame at a time: memory
        value = structural_similarity_index_measure(b, a, data_range=1.0)
        assert isinstance(value, Tensor)
        values.append(float(value))
    return tuple(values)


def lpips(reference: np.ndarray, frames: np.ndarray, network: Perceptual) -> tuple[float, ...]:
    """Learned perceptual distance of every frame; the network is given values in [-1, 1]."""
    with torch.no_grad():
        return tuple(
            float(network(a * 2 - 1, b * 2 - 1))
            for a, b in zip(_images(reference), _images(frames), strict=True)
        )


def lpips_network() -> Perceptual:
    """The AlexNet variant of LPIPS, which needs the extra `metrics`.

    Raises:
        RainfusionError: torchvision is not installed, or its AlexNet weights cannot be fetched.
    """
    from importlib.util import find_spec

    if find_spec("torchvision") is None:
        raise RainfusionError(
            "LPIPS needs torchvision, which is not installed",
            hint="install it with: pip install 'rainfusion[metrics]'",
        )
    from torchmetrics.image.lpip import LearnedPerceptualImagePatchSimilarity

    try:
        return LearnedPerceptualImagePatchSimilarity(net_type="alex", normalize=False)
    except OSError as error:
        raise RainfusionError(
            f"the AlexNet weights of LPIPS cannot be fetched: {error}",
            hint="leave --lpips out, or run once with a network; torchvision keeps them",
        ) from error


def flicker(frames: np.ndarray, reference: np.ndarray) -> float | None:
    """Mean absolute difference of consecutive frames where the reference stands still, in [0, 1].

    Static pixels are those whose three channels all change by less than `STATIC` from one frame of the
    reference to the next. The reference's own value is therefore below `STATIC`; what a clip has above
    it is flicker that was added. None if nothing is static.

    Source: VBench, arXiv 2311.17982, temporal flickering. Differs: only static pixels of a moving
    video are taken instead of whole static videos, and the difference itself is given, so less is better.
    """
    total, count = 0.0, 0
    for index in range(1, len(reference)):
        still = (np.abs(reference[index] - reference[index - 1]) < STATIC).all(axis=-1)
        total += float(np.abs(frames[index] - frames[index - 1])[still].sum(dtype=np.float64))
        count += 3 * int(still.sum())
    return total / count if count else None


def cosine(first: np.ndarray, second: np.ndarray) -> float:
    """Cosine similarity of two latents of one shape, in [-1, 1]."""
    a, b = (np.asarray(x, np.float64).ravel() for x in (first, second))
    return float(a @ b / max(math.sqrt(float(a @ a) * float(b @ b)), 1e-30))


def _images(frames: np.ndarray) -> list[Tensor]:
    """Every frame as (1, 3, height, width) in [0, 1]."""
    return [
        torch.from_numpy(np.ascontiguousarray(frame, np.float32)).clamp(0, 1).permute(2, 0, 1)[None]
        for frame in frames
    ]
