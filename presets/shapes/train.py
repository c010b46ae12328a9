"""The recipe of `shapes`: trains text encoder, VAE and transformer on clips it draws, and writes a WanPipeline folder.

    python presets/shapes/train.py --minutes 150 --run runs/shapes --out presets/shapes/weights

Stages follow each other, each with its share of the minutes: text, vae, cache, transformer. Every stage writes a
checkpoint into the run folder once a minute and picks it up again; log.jsonl there holds one line per report.
"""

import argparse
import copy
import json
import math
import os
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import torch
from diffusers.models.transformers import transformer_wan
from matmul_attention import matmul_attention
from optimiser import Optimizer, schedule
from parts import (
    TEXT_TOKENS,
    build_text_encoder,
    build_tokenizer,
    build_transformer,
    build_vae,
    write_pipeline,
)
from torch import Tensor, nn
from torch.nn import functional as F

from rainfusion_core.shapes import world

SHARES = {"text": 0.009, "vae": 0.187, "cache": 0.06, "transformer": 0.622}
# (share of the stage, batch, frames, height and width); small and short first, the target last
VAE_STAGES = [(0.25, 16, 1, 64), (0.1, 6, 5, 64), (0.25, 4, 9, 64), (0.4, 2, 17, 64)]
# (share, batch, frames, height and width, cached clips): 320, 1296 and 2304 tokens
TRANSFORMER_STAGES = [(0.42, 32, 17, 64, 7000), (0.2, 12, 33, 96, 1800), (0.38, 8, 33, 128, 1500)]
DROPOUT = 0.1  # share of captions replaced by the empty prompt, for guidance
SHIFT = 2.0  # training noise levels lean to the noisy side, as sampling does


@dataclass
class Run:
    """One training run: its folder, device, clock and log."""

    folder: Path
    device: torch.device
    minutes: float
    seed: int
    spent: dict[str, float] = field(default_factory=dict)

    def loop(self, stage: str, save: Callable[[], None]) -> Iterator[float]:
        """Yields the stage's progress in [0, 1) until its share of the minutes is spent."""
        if self.minutes == 0:  # only export what is there
            return
        budget, begin, saved = 60 * self.minutes * SHARES[stage], time.monotonic(), 0.0
        before = self.spent.get(stage, 0.0)
        while (spent := before + time.monotonic() - begin) < budget:
            yield spent / budget
            self.spent[stage] = before + time.monotonic() - begin
            if time.monotonic() - saved > 60:
                save()
                saved = time.monotonic()
        self.spent[stage] = budget
        save()

    def log(self, stage: str, **values: float) -> None:
        row = {"stage": stage, "seconds": round(self.spent.get(stage, 0.0), 1), **values}
        with (self.folder / "log.jsonl").open("a") as file:
            file.write(json.dumps(row) + "\n")
        print(row, flush=True)

    def path(self, name: str) -> Path:
        return self.folder / f"{name}.pt"

    def save(self, name: str, **state: object) -> None:
        unfinished = self.path(name).with_suffix(".partial")
        torch.save({**state, "spent": self.spent}, unfinished)
        os.replace(unfinished, self.path(name))

    def load(self, name: str) -> dict | None:
        if not self.path(name).is_file():
            return None
        state = torch.load(self.path(name), map_location=self.device, weights_only=True)
        self.spent |= state["spent"]
        return state


# --- text encoder ---------------------------------------------------------------------------------------------------

ATTRIBUTES = {
    "shape": world.SHAPES,
    "size": tuple(world.SIZES),
    "colour": tuple(world.COLOURS),
    "motion": tuple(world.MOTIONS),
    "background": tuple(world.COLOURS),
    "style": world.STYLES,
}


def train_text(run: Run, tokenizer, encoder: nn.Module) -> None:
    """Teaches every token to know all attributes of its caption: the transformer need not bind words itself."""
    heads = nn.ModuleDict({k: nn.Linear(64, len(v) + 1) for k, v in ATTRIBUTES.items()})
    heads.to(run.device)
    both = nn.ModuleList([encoder, heads])
    optimizer = torch.optim.AdamW(both.parameters(), 3e-3)
    if state := run.load("text"):
        both.load_state_dict(state["model"])
    rng = random.Random(run.seed)
    save = partial(run.save, "text", model=both.state_dict())
    for i, progress in enumerate(run.loop("text", save)):
        texts, labels = zip(*(example(rng) for _ in range(64)), strict=True)
        batch = tokenizer(list(texts), padding=True, return_tensors="pt").to(run.device)
        hidden = encoder(batch.input_ids, batch.attention_mask).last_hidden_state
        loss = torch.zeros((), device=run.device)
        for name, values in ATTRIBUTES.items():
            target = [values.index(x[name]) + 1 if x[name] else 0 for x in labels]
            target = torch.tensor(target, device=run.device)[:, None].expand(hidden.shape[:2])
            each = F.cross_entropy(
                heads[name](hidden).flatten(0, 1), target.flatten(), reduction="none"
            )
            loss = loss + (each * batch.attention_mask.flatten()).sum() / batch.attention_mask.sum()
        optimizer.param_groups[0]["lr"] = 3e-3 * schedule(progress)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        if i % 100 == 0:
            run.log("text", step=i, loss=round(loss.item(), 4))


def example(rng: random.Random) -> tuple[str, dict[str, str | None]]:
    if rng.random() < 0.03:
        return "", dict.fromkeys(ATTRIBUTES)
    return world.caption(world.random_scene(rng), rng)


@torch.no_grad()
def embed(tokenizer, encoder: nn.Module, texts: list[str]) -> Tensor:
    """(batch, TEXT_TOKENS, 64), zeros after the last token, exactly as WanPipeline does it."""
    device = next(encoder.parameters()).device
    batch = tokenizer(
        texts, padding="max_length", max_length=TEXT_TOKENS, truncation=True, return_tensors="pt"
    ).to(device)
    hidden = encoder(batch.input_ids, batch.attention_mask).last_hidden_state
    return hidden * batch.attention_mask[..., None]


# --- VAE ------------------------------------------------------------------------------------------------------------


def clips(rng: random.Random, batch: int, frames: int, size: int, *, crop: bool) -> Tensor:
    """(batch, 3, frames, size, size): whole clips, or windows of clips drawn up to 2.5 times as large."""
    out = []
    for _ in range(batch):
        drawn = int(size * rng.uniform(1, 2.5)) if crop else size
        y, x = (rng.randint(0, drawn - size) for _ in range(2))
        clip = world.draw(world.random_scene(rng), frames, drawn, drawn)
        out.append(clip[..., y : y + size, x : x + size])
    return torch.stack(out)


def train_vae(run: Run, vae: nn.Module) -> None:
    optimizer, step = Optimizer(vae, 2e-3), 0
    if state := run.load("vae"):
        vae.load_state_dict(state["model"])
        if "optimizer" in state:
            optimizer.load_state_dict(state["optimizer"])
            step = state["step"]
    rng = random.Random(run.seed + step)

    def save() -> None:
        run.save("vae", model=vae.state_dict(), optimizer=optimizer.state_dict(), step=step)

    for progress in run.loop("vae", save):
        batch, frames, size = stage_at(VAE_STAGES, progress)
        x = clips(rng, batch, frames, size, crop=True).to(run.device)
        x = x.contiguous(memory_format=torch.channels_last_3d)
        moments = vae._encode(x)
        mean, log_variance = moments.chunk(2, dim=1)
        log_variance = log_variance.clamp(-30, 20)
        z = mean + torch.randn_like(mean) * (0.5 * log_variance).exp()
        out = decode_unclamped(vae, z)
        kl = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).mean()
        mse = (out - x).square().mean()
        loss = (out - x).abs().mean() + mse + 2e-4 * kl
        loss.backward()
        norm = optimizer.step(schedule(progress))
        if step % 25 == 0:
            psnr = -10 * math.log10(mse.item() / 4)
            run.log(
                "vae", step=step, frames=frames, psnr=round(psnr, 2), kl=round(kl.item(), 3),
                grad=round(norm, 3),
            )  # fmt: skip
        step += 1


def decode_unclamped(vae: nn.Module, z: Tensor) -> Tensor:
    """`vae.decode` clamps its output, which stops the gradient of every saturated pixel."""
    clamp, torch.clamp = torch.clamp, lambda x, **_: x
    try:
        return vae._decode(z).sample
    finally:
        torch.clamp = clamp


def stage_at(stages: list[tuple], progress: float) -> tuple:
    for share, *stage in stages:
        if progress < share:
            return tuple(stage)
        progress -= share
    return tuple(stages[-1][1:])


# --- cached latents -------------------------------------------------------------------------------------------------


@torch.no_grad()
def cache_latents(run: Run, vae: nn.Module, frames: int, size: int, count: int) -> dict:
    """Latents (clips, 16, t, h, w) float16 and two captions a clip, drawn once and kept in the run folder."""
    name = f"latents-{frames}x{size}"
    state = run.load(name) or {"latents": [], "captions": []}
    rng = random.Random(f"{run.seed}-{name}-{len(state['captions'])}")
    budget = time.monotonic() + 60 * run.minutes * SHARES["cache"] / len(TRANSFORMER_STAGES)
    latents, captions = list(state["latents"]), list(state["captions"])
    batch = max(1, 8 * 64 * 64 * 17 // (frames * size * size))
    known = len(captions)
    while len(captions) < count and (time.monotonic() < budget or len(captions) < 64):
        scenes = [world.random_scene(rng) for _ in range(batch)]
        x = torch.stack([world.draw(scene, frames, size, size) for scene in scenes]).to(run.device)
        x = x.contiguous(memory_format=torch.channels_last_3d)
        latents += vae._encode(x).chunk(2, dim=1)[0].half().cpu().unbind()
        captions += [[world.caption(scene, rng)[0] for _ in range(2)] for scene in scenes]
    stacked = torch.stack(latents)
    if len(captions) > known:
        run.save(name, latents=stacked, captions=captions)
        run.log("cache", frames=frames, size=size, clips=len(captions))
    return {"latents": stacked, "captions": captions}


# --- transformer ----------------------------------------------------------------------------------------------------


def flow_loss(transformer: nn.Module, latents: Tensor, text: Tensor) -> Tensor:
    """Flow matching (arXiv 2210.02747): predict noise minus data on the straight line between them."""
    sigma = torch.randn(len(latents), device=latents.device).sigmoid()
    sigma = SHIFT * sigma / (1 + (SHIFT - 1) * sigma)
    s = sigma.view(-1, 1, 1, 1, 1)
    noise = torch.randn_like(latents)
    with torch.autocast(latents.device.type, torch.bfloat16):
        flow = transformer(
            hidden_states=(1 - s) * latents + s * noise,
            timestep=sigma * 1000,
            encoder_hidden_states=text,
            return_dict=False,
        )[0]
    return (flow.float() - (noise - latents)).square().mean()


def train_transformer(run: Run, transformer: nn.Module, ema: nn.Module, data: Callable) -> None:
    optimizer, step, shape = Optimizer(transformer, 2.5e-3), 0, None
    if state := run.load("transformer"):
        transformer.load_state_dict(state["model"])
        ema.load_state_dict(state["ema"])
        if "optimizer" in state:
            optimizer.load_state_dict(state["optimizer"])
            step = state["step"]
    torch.manual_seed(run.seed + step)

    def save() -> None:
        run.save(
            "transformer", model=transformer.state_dict(), ema=ema.state_dict(),
            optimizer=optimizer.state_dict(), step=step,
        )  # fmt: skip

    losses = []
    for progress in run.loop("transformer", save):
        batch, *stage = stage_at(TRANSFORMER_STAGES, progress)
        if stage != shape:
            shape, sample = stage, data(*stage)
        loss = flow_loss(transformer, *sample(batch))
        loss.backward()
        norm = optimizer.step(schedule(progress))
        step += 1
        decay = min(0.99, step / (step + 20))
        with torch.no_grad():
            torch._foreach_lerp_(list(ema.parameters()), list(transformer.parameters()), 1 - decay)
        losses.append(loss.item())
        if step % 25 == 0:
            run.log(
                "transformer", step=step, frames=stage[0], size=stage[1], batch=batch,
                loss=round(sum(losses) / len(losses), 4), grad=round(norm, 3),
            )  # fmt: skip
            losses.clear()


def sampler(run: Run, vae: nn.Module, statistics: dict, embedding: Callable) -> Callable:
    """(frames, size, clips) -> a function that draws (latents, text embeddings) batches on the device."""

    def data(frames: int, size: int, count: int) -> Callable:
        cached = cache_latents(run, vae, frames, size, count)
        if not statistics:
            statistics["mean"] = cached["latents"].float().mean((0, 2, 3, 4))
            statistics["std"] = cached["latents"].float().std((0, 2, 3, 4))
        mean, std = (statistics[key].view(1, -1, 1, 1, 1) for key in ("mean", "std"))
        texts = [embedding([pair[i] for pair in cached["captions"]]) for i in range(2)]
        empty = embedding([""])[0]

        def sample(batch: int) -> tuple[Tensor, Tensor]:
            pick = torch.randint(len(cached["latents"]), (batch,))
            text = texts[int(torch.rand(()) < 0.5)][pick].clone()
            text[torch.rand(batch) < DROPOUT] = empty
            latents = (cached["latents"][pick].float() - mean) / std
            return latents.to(run.device), text.to(run.device)

        return sample

    return data


# --- the whole ------------------------------------------------------------------------------------------------------


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=150.0, help="wall time of the training")
    parser.add_argument("--run", type=Path, default=Path("runs/shapes"), help="checkpoints and log")
    parser.add_argument("--out", type=Path, default=Path("runs/shapes/pipeline"))
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--export-only", action="store_true", help="write --out from checkpoints")
    arguments = parser.parse_args()
    minutes = 0.0 if arguments.export_only else arguments.minutes
    run = Run(arguments.run, torch.device(arguments.device), minutes, arguments.seed)
    run.folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(run.seed)

    tokenizer = build_tokenizer()
    encoder = build_text_encoder(len(tokenizer)).to(run.device)
    train_text(run, tokenizer, encoder)
    vae = build_vae().to(run.device)
    train_vae(run, vae)
    transformer = build_transformer().to(run.device)
    if run.device.type == "cpu":
        transformer_wan.dispatch_attention_fn = matmul_attention
    ema = copy.deepcopy(transformer).requires_grad_(False)
    statistics: dict[str, Tensor] = {}
    data = sampler(run, vae, statistics, lambda texts: embed(tokenizer, encoder, texts).cpu())
    data(*TRANSFORMER_STAGES[0][2:])  # fixes the statistics at the shape that training starts with
    transformer.compile_repeated_blocks(dynamic=False)
    train_transformer(run, transformer, ema, data)
    write_pipeline(arguments.out, tokenizer, encoder, vae, ema, statistics)


if __name__ == "__main__":
    main()
