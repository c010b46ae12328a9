from functools import partial

import torch

from rainfusion_core import SparseConfig, install
from rainfusion_core.layout import LatentGrid, Text, TokenLayout
from tests import image_pipelines
from tests.core.adapters.contract import SMALL, Case, ConditionedContract

IMAGE, REFERENCES = LatentGrid(1, 15, 19), (LatentGrid(1, 18, 17), LatentGrid(1, 17, 20))
PICTURES = [(68, 72), (80, 68)]  # smaller ones are refused


def run(pipeline, **changes):
    settings = dict(prompt_embeds=image_pipelines.text(9), height=60, width=76)
    return image_pipelines.run(pipeline, **settings | changes)


def edit(pipeline, first=None, second=None):
    sizes = zip(PICTURES, (first, second), strict=True)
    return run(pipeline, image=[image_pipelines.picture(*size, seed) for size, seed in sizes])


def guided(pipeline):
    return run(pipeline, negative_prompt_embeds=-image_pipelines.text(9), guidance_scale=4.0)


def case(run, *grids, kind="Flux2Pipeline", branches=("cond",), others=(), **changes):
    return Case(
        make=lambda: image_pipelines.flux2(kind, **changes),
        run=run,
        layout=TokenLayout((Text(9), *grids)),
        layers=4,
        branches=branches,
        axes=(1,),
        others={name: partial(run, **{name: 7}) for name in others},
    )


CASES = {
    "dev": case(run, IMAGE),
    "dev-two-references": case(edit, IMAGE, *REFERENCES, others=["first", "second"]),
    "klein-guided": case(
        guided, IMAGE, kind="Flux2KleinPipeline", branches=("cond", "uncond"),
        guidance_embeds=False,
    ),
}  # fmt: skip


class TestContract(ConditionedContract):
    cases = CASES


def test_reused_keys_of_references_run_dense_and_are_counted():
    """The first step keeps keys and values of the reference, the others have them as extra keys."""
    pipeline = image_pipelines.flux2("Flux2KleinKVPipeline", guidance_embeds=False)
    settings = dict(image=[image_pipelines.picture(*PICTURES[0])])
    dense = run(pipeline, **settings)
    with install(pipeline, SparseConfig(**{**SMALL, "strict": False})) as handle:
        ours = run(pipeline, **settings)
        reasons = handle.report().dense_reasons()
    # four layers; in the first step the reference attends to itself, and text and image to all
    assert reasons == {
        "queries and keys differ in number": 4 + 4,
        "the grids do not explain the tokens": 4,
    }
    torch.testing.assert_close(ours, dense, atol=1e-5, rtol=0)
