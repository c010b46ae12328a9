"""Drawn clips as latents, encoded once and kept in the run folder, and the batches that are drawn from them."""

import copy
import random
from collections.abc import Callable
from typing import NamedTuple

import torch
from run import Run
from torch import Tensor, nn
from torch.nn import functional as F

from rainfusion_core.shapes import world
from rainfusion_core.shapes.drawing import draw_parts

DROPOUT = 0.1  # share of captions replaced by the empty prompt, for guidance
CAPTIONS = 2  # wordings kept a clip
FEWEST = 4  # clips that a cache holds however short the time is
SHARE_CONTRADICTED = 0.8  # share of the clips with a twin that show something of it
LEAST_SHOWN = 0.3  # of the twin
SHARE_MOVED = 0.25  # share of the twins of clips that move in another way instead
# what renders get wrong most often, and how many of the other scenes are kept where these are preferred
HARD_SHAPES = ("ring", "star", "square")
HARD_MOTIONS = ("fading", "bouncing", "orbiting", "spinning", "shrinking")
SHARE_EASY = 0.25

MASKS = 4  # channels that tell the frames of a latent frame that are given


class Batch(NamedTuple):
    """What one training step sees.

    Attributes:
        shown: (clips, 16, t, h, w), what the noisy clip is made of: the latents, or those of the same scene
            with another outline or motion than the caption says.
        covers: (clips, 1, t, h, w), what share of each token a shape covers, in either.
        condition: (clips, 20, t, h, w) of a clip that begins with a given image, as WanImageToVideoPipeline
            makes it: masks, and latents of the image with grey frames behind it.
    """

    latents: Tensor
    shown: Tensor
    covers: Tensor
    text: Tensor
    condition: Tensor | None


@torch.no_grad()
def encode(vae: nn.Module, clips: Tensor) -> Tensor:
    """Latents (clips, 16, t, h, w), float16, of clips (clips, 3, frames, height, width) in [-1, 1]."""
    x = clips.to(next(vae.parameters()).device, torch.bfloat16)
    x = x.contiguous(memory_format=torch.channels_last_3d)
    return vae._encode(x).chunk(2, dim=1)[0].half().cpu()


def draw(scenes: list[world.Scene], frames: int, size: int) -> tuple[Tensor, Tensor]:
    """Clips (clips, 3, frames, size, size), and the share of each pixel that a shape covers (clips, 1, ...)."""
    clips, covers = zip(*(draw_parts(scene, frames, size, size) for scene in scenes), strict=True)
    return torch.stack(clips), torch.stack(covers)


def is_hard(scene: world.Scene, frames: int) -> bool:
    subject = scene.subjects[0]
    return subject.shape in HARD_SHAPES or (frames > 1 and subject.motion in HARD_MOTIONS)


def hard_scene(frames: int, rng: random.Random) -> world.Scene:
    """A scene to train on; `SHARE_EASY` of those that are not hard are drawn."""
    while True:
        scene = world.random_scene(rng)
        if is_hard(scene, frames) or rng.random() < SHARE_EASY:
            return scene


def twin(scene: world.Scene, frames: int, rng: random.Random) -> world.Scene:
    if frames > 1 and rng.random() < SHARE_MOVED:
        return world.with_another_motion(scene, rng)
    return world.with_another_outline(scene, rng)


def encode_all(
    vae: nn.Module,
    scenes: list[world.Scene],
    frames: int,
    size: int,
    rng: random.Random,
    *,
    image: bool,
) -> dict[str, Tensor]:
    """Latents and covers; those of the given images if `image`, otherwise twins of every second clip."""
    clips, covers = draw(scenes, frames, size)
    found = {"latents": encode(vae, clips)}
    if image:
        clips[:, :, 1:] = 0  # grey frames behind the first one
        found["images"] = encode(vae, clips)
    else:
        others = [twin(scene, frames, rng) for scene in scenes[::2]]
        twins, theirs = draw(others, frames, size)
        covers[::2] = torch.maximum(covers[::2], theirs)
        found["twins"] = encode(vae, twins)
    found["covers"] = F.adaptive_max_pool3d(covers, found["latents"].shape[2:]).half()
    return found


def cache(
    run: Run,
    vae: nn.Module,
    frames: int,
    size: int,
    count: int,
    seconds: float,
    *,
    image: bool = False,
    hard: bool = False,
) -> dict:
    """`count` clips, or as many as `seconds` of work bring; those with `image` can begin with a given one."""
    name = f"latents-{frames}x{size}" + ("-image" if image else "") + ("-hard" if hard else "")
    keys = ("latents", "covers", "images" if image else "twins")
    state = run.load(name) or {}
    if not state.keys() >= set(keys):  # of an earlier recipe
        state = {}
    tensors = {key: list(state.get(key, ())) for key in keys}
    captions = list(state.get("captions", ()))
    known, begin = len(captions), run.now()
    rng = random.Random(f"{run.seed}-{name}-{known}")
    batch = 2 * max(1, 4 * 64 * 64 * 17 // (frames * size * size))
    vae = copy.deepcopy(vae).bfloat16()  # up to four times as fast on a CPU, latents within 0.4 %
    while len(captions) < count and (run.now() - begin < seconds or len(captions) < FEWEST):
        scenes = [
            hard_scene(frames, rng) if hard else world.random_scene(rng) for _ in range(batch)
        ]
        for key, more in encode_all(vae, scenes, frames, size, rng, image=image).items():
            tensors[key] += more.unbind()
        captions += [[world.caption(scene, rng)[0] for _ in range(CAPTIONS)] for scene in scenes]
    found = {**{key: torch.stack(each) for key, each in tensors.items()}, "captions": captions}
    if len(captions) > known:
        run.save(name, **found)
        run.log("cache", frames=frames, size=size, clips=len(captions))
    run.aside += run.now() - begin
    return found


def sampler(found: dict, statistics: dict, embedding: Callable, device: torch.device) -> Callable:
    """A function of the batch size that draws a `Batch` on the device."""
    mean, std = (statistics[key].view(1, -1, 1, 1, 1) for key in ("mean", "std"))
    texts = [embedding([pair[i] for pair in found["captions"]]).cpu() for i in range(CAPTIONS)]
    empty = embedding([""])[0].cpu()

    def sample(batch: int) -> Batch:
        pick = torch.randint(len(found["latents"]), (batch,))
        text = texts[int(torch.randint(CAPTIONS, ()))][pick].clone()
        untold = torch.rand(batch) < DROPOUT
        text[untold] = empty
        latents, condition = (found["latents"][pick].float() - mean) / std, None
        shown = latents
        if "twins" in found:
            twins = (found["twins"][pick // 2].float() - mean) / std
            some = LEAST_SHOWN + (1 - LEAST_SHOWN) * torch.rand(batch)
            some *= (pick % 2 == 0) & ~untold & (torch.rand(batch) < SHARE_CONTRADICTED)
            shown = torch.lerp(latents, twins, some.view(-1, 1, 1, 1, 1))
        if "images" in found:
            images = (found["images"][pick].float() - mean) / std
            masks = torch.zeros_like(images[:, :MASKS])
            masks[:, :, 0] = 1
            condition = torch.cat([masks, images], dim=1).to(device)
        covers = found["covers"][pick].float()
        return Batch(*(x.to(device) for x in (latents, shown, covers, text)), condition)

    return sample


def statistics_of(run: Run, found: dict) -> dict[str, Tensor]:
    """Mean and standard deviation of every channel: those of the run's first call, as weights fit one normalisation."""
    known = run.load("statistics")
    if known is None:
        latents = found["latents"].float()
        known = {"mean": latents.mean((0, 2, 3, 4)), "std": latents.std((0, 2, 3, 4))}
        run.save("statistics", **known)
    return known
