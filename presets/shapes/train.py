"""The recipe of `shapes`: trains text encoder, VAE and transformer on clips it draws, and writes a WanPipeline folder.

    python presets/shapes/train.py --minutes 200 --run runs/shapes --out presets/shapes/weights

Stages follow each other, each with its share of the minutes: text, vae, transformer (with its cache of latents), and
from it the transformer of image-to-video. Every stage writes a checkpoint into the run folder once a minute and picks
it up again; log.jsonl there holds one line per report. On a GPU the same schedule runs with wider batches.
"""

import argparse
import copy
from functools import partial
from pathlib import Path

import torch
from diffusers.models.transformers import transformer_wan
from latents import cache, sampler, statistics_of
from parts import (
    TRAINED_GRID,
    build_text_encoder,
    build_tokenizer,
    build_transformer,
    build_vae,
    with_image,
    write_pipeline,
)
from run import Run, start_from
from tile_attention import tile_attention
from torch import nn
from train_text import embed, train_text
from train_transformer import Data, Sampler, shapes_of_stages, train_transformer
from train_vae import train_vae

from rainfusion_core.loading.positions import interpolate

SHARES = {"text": 0.02, "vae": 0.16, "cache": 0.10, "transformer": 0.60, "transformer-image": 0.12}
USUAL = (33, 128)  # frames and size of the preset's clip, whose latents are normalised
WORTH_COMPILING = 10  # minutes; a graph for every shape of clip takes longer than a short run saves
WIDE_ON_GPU = 8  # how many times the CPU's batches


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=200.0, help="of work, over all stages")
    parser.add_argument("--run", type=Path, default=Path("runs/shapes"), help="checkpoints and log")
    parser.add_argument("--out", type=Path, default=Path("runs/shapes/pipeline"))
    parser.add_argument(
        "--start-from", type=Path, help="run folder whose VAE and transformer to begin with"
    )
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--export-only", action="store_true", help="write --out from checkpoints")
    return parser.parse_args()


def main() -> None:
    given = arguments()
    minutes = 0.0 if given.export_only else given.minutes
    run = Run(given.run, torch.device(given.device), minutes, given.seed, SHARES)
    run.folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(run.seed)
    wide = WIDE_ON_GPU if run.device.type == "cuda" else 1

    tokenizer = build_tokenizer()
    encoder = build_text_encoder(len(tokenizer)).to(run.device)
    vae, transformer = build_vae(), build_transformer()
    if given.start_from:
        start_from(given.start_from, "vae", vae)
        start_from(given.start_from, "transformer", transformer)
    train_text(run, tokenizer, encoder)
    train_vae(run, vae.to(run.device), wide=wide)

    shapes = shapes_of_stages()
    seconds = 60 * minutes * SHARES["cache"] / 3  # few of the caches need all of theirs
    usual = next(shape for shape in shapes if shape[:2] == USUAL)
    statistics = statistics_of(run, cache(run, vae, *usual, seconds))

    def data(frames: int, size: int, count: int, *, image: bool = False) -> Sampler:
        found = cache(run, vae, frames, size, wide * count, seconds, image=image)
        return sampler(
            found, statistics, lambda texts: embed(tokenizer, encoder, texts), run.device
        )

    trained = averaged(run, transformer, data, wide=wide, name="transformer")
    beginning = partial(data, image=True)
    image = averaged(run, with_image(trained), beginning, wide=wide, name="transformer-image")
    write_pipeline(given.out, tokenizer, encoder, vae, trained, image, statistics)


def averaged(run: Run, transformer: nn.Module, data: Data, *, wide: int, name: str) -> nn.Module:
    """Train it, and return the moving average of its weights."""
    if run.device.type == "cpu":
        transformer_wan.dispatch_attention_fn = tile_attention
    torch._dynamo.config.recompile_limit = 64  # one graph for every shape of clip
    transformer = transformer.to(run.device)
    interpolate(transformer, TRAINED_GRID)  # no loss tells a larger clip from a wider one
    ema = copy.deepcopy(transformer).requires_grad_(False)
    if run.minutes >= WORTH_COMPILING:
        transformer.compile_repeated_blocks(dynamic=False)
    train_transformer(run, transformer, ema, data, wide=wide, name=name)
    return ema


if __name__ == "__main__":
    main()
