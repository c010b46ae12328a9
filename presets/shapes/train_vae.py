"""Trains the VAE on windows of drawn clips: single images first, then longer and longer clips."""

import math
import random

import torch
from optimiser import Optimizer, schedule
from run import Run, resume, stage_at
from torch import Tensor, nn
from torch.nn import functional as F

from rainfusion_core.shapes import world
from rainfusion_core.shapes.drawing import draw

# share, batch, frames, and height as well as width of each stage; less than 128, because from 64 columns on oneDNN's
# gradient of a bfloat16 convolution corrupts memory on a CPU with AMX (torch 2.13; the VAE sees pixels in twos)
STAGES = [(0.25, 16, 1, 64), (0.1, 6, 5, 64), (0.25, 4, 9, 64), (0.3, 2, 17, 64), (0.1, 1, 17, 112)]
KL = 2e-4


def train_vae(run: Run, vae: nn.Module, *, wide: int) -> None:
    """`wide` multiplies every batch."""
    optimizer = Optimizer(vae, 2e-3)
    step = resume(run, "vae", model=vae, optimizer=optimizer)
    rng = random.Random(f"{run.seed}-vae-{step}")

    def save() -> None:
        run.save("vae", model=vae.state_dict(), optimizer=optimizer.state_dict(), step=step)

    for progress in run.loop("vae", save):
        batch, frames, size = stage_at(STAGES, progress)
        x = windows(rng, wide * batch, frames, size).to(run.device)
        with torch.autocast(run.device.type, torch.bfloat16):
            loss, mse, kl = vae_loss(vae, x.contiguous(memory_format=torch.channels_last_3d))
        loss.backward()
        optimizer.step(schedule(progress))
        step += 1
        if run.due("vae", progress):
            psnr = -10 * math.log10(mse / 4)
            run.log("vae", step=step, frames=frames, psnr=round(psnr, 2), kl=round(kl, 3))


def windows(rng: random.Random, batch: int, frames: int, size: int) -> Tensor:
    """(batch, 3, frames, size, size): windows of clips that are drawn up to 2.5 times as large."""
    out = []
    for _ in range(batch):
        drawn = int(size * rng.uniform(1, 2.5))
        y, x = (rng.randint(0, drawn - size) for _ in range(2))
        clip = draw(world.random_scene(rng), frames, drawn, drawn)
        out.append(clip[..., y : y + size, x : x + size])
    return torch.stack(out)


def vae_loss(vae: nn.Module, x: Tensor) -> tuple[Tensor, float, float]:
    """(loss, mean squared error, KL); absolute and squared error and a small KL term."""
    mean, log_variance = vae._encode(x).chunk(2, dim=1)
    log_variance = log_variance.clamp(-30, 20)
    z = mean + torch.randn_like(mean) * (0.5 * log_variance).exp()
    out = decode_unclamped(vae, z)
    kl = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).mean()
    mse = F.mse_loss(out, x)
    loss = F.l1_loss(out, x) + mse + KL * kl
    return loss, mse.item(), kl.item()


def decode_unclamped(vae: nn.Module, z: Tensor) -> Tensor:
    """`vae.decode` clamps its output, which stops the gradient of every saturated pixel."""
    clamp, torch.clamp = torch.clamp, lambda x, **_: x
    try:
        return vae._decode(z).sample
    finally:
        torch.clamp = clamp
