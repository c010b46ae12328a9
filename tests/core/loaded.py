"""Tiny pipelines on disk, loaded with options and rendered with sparse attention."""

from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import NamedTuple

import torch

from rainfusion_core import SparseConfig, install
from rainfusion_core.loading.options import LoadOptions
from rainfusion_core.pipeline import ModelSource, load
from rainfusion_core.report import SparsityReport
from tests import pipelines

FAMILIES = {"wan": pipelines.wan, "cogvideox": pipelines.cogvideox}
# a kernel by name: with "auto" calls this small run dense, where that was measured to be faster;
# strict: whatever an option does, every layer is understood; with the first frame as a sink, as
# the tolerances were measured
SPARSE = SparseConfig(sparsity=0.5, sink=True, block_size=16, kernel="torch-blocks", strict=True)


class Outcome(NamedTuple):
    """`latents` as the decoder would be given them: a random decoder costs most and proves nothing."""

    latents: torch.Tensor
    report: SparsityReport


@cache
def folder(family: str) -> Path:
    path = Path(mkdtemp(prefix="rf-test-")) / family
    FAMILIES[family]().save_pretrained(path)
    return path


def source(family: str, **options) -> ModelSource:
    return ModelSource(location=str(folder(family)), options=LoadOptions(**options))


def rendered(pipeline, *, steps: int = 5, config: SparseConfig = SPARSE) -> Outcome:
    with install(pipeline, config) as handle:
        handle.verify()
        latents = latents_of(pipeline, steps=steps)
        return Outcome(latents, handle.report())


def latents_of(pipeline, *, steps: int = 5) -> torch.Tensor:
    return pipelines.run(pipeline, num_inference_steps=steps, output_type="latent")


@cache
def plain(family: str) -> Outcome:
    """Sparse attention, no option."""
    return rendered(load(source(family)))


def distance(a: Outcome, b: Outcome) -> float:
    """The largest difference, as a share of the largest value of `b`."""
    return ((a.latents - b.latents).abs().max() / b.latents.abs().max()).item()
