"""Trains the transformer by flow matching on cached latents, small and short clips first, the largest last."""

import itertools
from collections.abc import Callable

import torch
from latents import Batch
from optimiser import Optimizer, schedule
from run import Run, resume, stage_at
from torch import Tensor, nn

# (share, [(batch, frames, height and width, cached clips)]): the entries of a stage take turns.
# Single images teach shapes at full size for the price of short clips of a quarter of it.
STAGES = [
    (0.27, [(32, 1, 128, 12000), (32, 17, 64, 6000)]),
    (0.12, [(16, 1, 128, 12000), (12, 9, 128, 2500), (10, 33, 96, 1500)]),
    (0.14, [*[(8, 33, 128, 4500)] * 2, (10, 9, 128, 2500)]),
    (0.07, [(6, 33, 128, 4500), (2, 33, 192, 200), (1, 49, 256, 100)]),
    (0.4, [*[(8, 33, 128, 4500)] * 2, (10, 9, 128, 2500), *[(8, 33, 128, 4500)] * 2, (32, 1, 128, 12000),
           *[(8, 33, 128, 4500)] * 2, (2, 9, 256, 200), (4, 1, 256, 800)]),
]  # fmt: skip
# Shifts of the noise levels: a render takes a quarter of its steps above 0.9, where it is decided what is where.
NOISY, FINE, SHARE_NOISY = 5.0, 1.5, 0.75
# and of clips that show another outline than their caption says: below the least it can't be mended any more,
# and above the greatest it can't be seen
CONTRADICTED, LEAST, GREATEST = 2.5, 0.45, 0.97
# From so many tokens a side the same noise hides less, and shifts are so much larger.
LARGE, LARGER = 32, 2.0
FOREGROUND = 4.0  # how much more a token counts that a shape covers
# clips that begin with a given image, for the transformer of image-to-video
IMAGE_STAGES = [(0.7, [(24, 17, 64, 3000)]), (0.3, [(8, 33, 128, 500), (10, 33, 96, 500)])]
# and to train on from weights that are there, on scenes that go wrong most often
ON_STAGES = [
    (1.0, [(8, 33, 128, 1500), (16, 1, 256, 3000), *[(8, 33, 128, 1500), (1, 49, 256, 200)] * 2])
]
AVERAGE = 0.99
PLANS = {  # stages and top rate of each run
    "transformer": (STAGES, 2.5e-3),
    "transformer-image": (IMAGE_STAGES, 1e-3),
    "transformer-on": (ON_STAGES, 5e-4),
}

Sampler = Callable[[int], Batch]
Data = Callable[[int, int, int], Sampler]


def shapes_of_stages() -> list[tuple[int, int, int]]:
    """(frames, size, cached clips) of everything that is trained on, in the order of first use."""
    entries = itertools.chain.from_iterable(entries for _, entries in STAGES)
    return list(dict.fromkeys(entry[1:] for entry in entries))


def flow_loss(
    transformer: nn.Module,
    latents: Tensor,
    shown: Tensor,
    covers: Tensor,
    text: Tensor,
    condition: Tensor | None = None,
) -> Tensor:
    """Flow matching (arXiv 2210.02747): from what is shown under noise, the straight line to the latents.

    Where both are the same, that is noise minus data. Where another outline is shown, it teaches to trust the
    caption more than what was begun: in a render the first steps may have begun the wrong one.
    """
    sigma = noise_levels((shown != latents).flatten(1).any(1), latents.shape[-1])
    s = sigma.view(-1, 1, 1, 1, 1)
    noisy = (1 - s) * shown + s * torch.randn_like(latents)
    with torch.autocast(latents.device.type, torch.bfloat16):
        flow = transformer(
            hidden_states=noisy if condition is None else torch.cat([noisy, condition], dim=1),
            timestep=sigma * 1000,
            encoder_hidden_states=text,
            return_dict=False,
        )[0]
    weights = 1 + (FOREGROUND - 1) * covers
    error = (flow.float() - (noisy - latents) / s).square()
    return (error * weights / weights.mean((2, 3, 4), keepdim=True)).mean()


def noise_levels(contradicted: Tensor, width: int) -> Tensor:
    """One in (0, 1) for each of (clips,) `width` tokens wide, nearer to the middle where the clip is contradicted."""
    sigma = torch.randn(len(contradicted), device=contradicted.device).sigmoid()
    shift = torch.where(torch.rand_like(sigma) < SHARE_NOISY, NOISY, FINE)
    shift = torch.where(contradicted, CONTRADICTED, shift) * (LARGER if width >= LARGE else 1.0)
    sigma = shift * sigma / (1 + (shift - 1) * sigma)
    return torch.where(contradicted, sigma.clamp(LEAST, GREATEST), sigma)


def train_transformer(
    run: Run,
    transformer: nn.Module,
    ema: nn.Module,
    data: Data,
    *,
    wide: int,
    name: str = "transformer",
) -> None:
    """`data` makes the sampler of (frames, size, clips); `wide` multiplies every batch; `name` is the stage's."""
    stages, rate = PLANS[name]
    optimizer = Optimizer(transformer, rate)
    step = resume(run, name, model=transformer, ema=ema, optimizer=optimizer)
    torch.manual_seed(run.seed + step)
    samplers: dict[tuple, Sampler] = {}
    losses: dict[str, list[float]] = {}

    def save() -> None:
        run.save(
            name, model=transformer.state_dict(), ema=ema.state_dict(),
            optimizer=optimizer.state_dict(), step=step,
        )  # fmt: skip

    for progress in run.loop(name, save):
        (entries,) = stage_at(stages, progress)
        batch, *shape = entries[step % len(entries)]
        if tuple(shape) not in samplers:
            samplers[tuple(shape)] = data(*shape)
        loss = flow_loss(transformer, *samplers[tuple(shape)](wide * batch))
        loss.backward()
        norm = optimizer.step(schedule(progress))
        step += 1
        follow(ema, transformer, min(AVERAGE, step / (step + 20)))
        losses.setdefault(f"loss-{shape[0]}x{shape[1]}", []).append(loss.item())
        if run.due(name, progress):
            means = {key: round(sum(each) / len(each), 4) for key, each in losses.items()}
            run.log(name, step=step, grad=round(norm, 3), **means)
            losses.clear()


@torch.no_grad()
def follow(ema: nn.Module, model: nn.Module, decay: float) -> None:
    torch._foreach_lerp_(list(ema.parameters()), list(model.parameters()), 1 - decay)
