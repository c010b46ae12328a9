"""Trains the transformer of a written `shapes` pipeline on, on fresh clips of what renders get wrong most often.

    python presets/shapes/train_on.py presets/shapes/weights --minutes 75 --run runs/on --out runs/on/pipeline

Text encoder, VAE, its normalisation and the transformer of image-to-video stay as they are. What is written is a
mean of the weights before and after: on clips that were not trained on it is better than either. Checkpoints and
log are kept in the run folder, as by train.py.
"""

import argparse
import copy
import shutil
from pathlib import Path

import torch
from diffusers import WanPipeline, WanTransformer3DModel
from latents import cache, sampler
from run import Run
from train import WIDE_ON_GPU, averaged
from train_text import embed
from train_transformer import Sampler, follow

SHARES = {"cache": 0.25, "transformer-on": 0.75}


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("weights", type=Path, help="folder of the pipeline to begin with")
    parser.add_argument("--minutes", type=float, default=75.0, help="of work")
    parser.add_argument("--run", type=Path, default=Path("runs/on"), help="checkpoints and log")
    parser.add_argument("--out", type=Path, default=Path("runs/on/pipeline"))
    parser.add_argument(
        "--share",
        type=float,
        default=0.5,
        help="of the trained weights in the mean that is written",
    )
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


def main() -> None:
    given = arguments()
    run = Run(given.run, torch.device(given.device), given.minutes, given.seed, SHARES)
    run.folder.mkdir(parents=True, exist_ok=True)
    wide = WIDE_ON_GPU if run.device.type == "cuda" else 1
    pipeline = WanPipeline.from_pretrained(given.weights, torch_dtype=torch.float32)
    pipeline.vae.to(run.device)
    encoder = pipeline.text_encoder.to(run.device)
    normalisation = pipeline.vae.config
    statistics = {
        "mean": torch.tensor(normalisation.latents_mean), "std": torch.tensor(normalisation.latents_std),
    }  # fmt: skip
    seconds = 60 * run.minutes * SHARES["cache"] / 2

    def data(frames: int, size: int, count: int) -> Sampler:
        found = cache(run, pipeline.vae, frames, size, wide * count, seconds, hard=True)
        return sampler(
            found, statistics, lambda texts: embed(pipeline.tokenizer, encoder, texts), run.device
        )

    before = copy.deepcopy(pipeline.transformer)
    after = averaged(run, pipeline.transformer, data, wide=wide, name="transformer-on")
    follow(before, after.cpu(), 1 - given.share)
    write(given.weights, given.out, before)


def write(weights: Path, out: Path, transformer: WanTransformer3DModel) -> None:
    """The pipeline of `weights` with this transformer of text-to-video."""
    shutil.copytree(weights, out, dirs_exist_ok=True)
    transformer.half().save_pretrained(out / "transformer", safe_serialization=True)


if __name__ == "__main__":
    main()
