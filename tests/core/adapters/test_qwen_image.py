from functools import partial
from unittest.mock import patch

import pytest
import torch

from rainfusion_core import SparseConfig, install
from rainfusion_core.adapters.qwen_image import QWEN_IMAGE
from rainfusion_core.layout import LatentGrid, Text, TokenLayout
from tests import image_pipelines
from tests.core.adapters.contract import SMALL, Case, ConditionedContract

IMAGE, REFERENCES = LatentGrid(1, 15, 19), (LatentGrid(1, 6, 10), LatentGrid(1, 12, 6))
EDIT_PLUS = "diffusers.pipelines.qwenimage.pipeline_qwenimage_edit_plus"
EDIT = "diffusers.pipelines.qwenimage.pipeline_qwenimage_edit"


def run(pipeline, **changes):
    settings = dict(
        prompt_embeds=image_pipelines.text(9), negative_prompt_embeds=-image_pipelines.text(9),
        true_cfg_scale=4.0, height=240, width=304,
    )  # fmt: skip
    return image_pipelines.run(pipeline, **settings | changes)


def edit(pipeline, seed=None):
    calculate = f"{EDIT}.calculate_dimensions"
    with patch(calculate, return_value=(160, 96, None)):  # not to a million pixels
        return run(pipeline, image=image_pipelines.picture(160, 96, seed))


def edit_plus(pipeline, first=None, second=None):
    pictures = [image_pipelines.picture(160, 96, first), image_pipelines.picture(90, 210, second)]
    with patch(f"{EDIT_PLUS}.VAE_IMAGE_SIZE", 160 * 96):  # not to a million pixels
        return run(pipeline, image=pictures)


def layered(transformer):
    """As the pipeline for layers has it, which needs a text encoder."""
    generator = torch.Generator().manual_seed(0)
    return transformer(
        torch.randn(1, 5 * 9 * 11, 64, generator=generator),
        image_pipelines.text(9), timestep=torch.tensor([0.5]),
        img_shapes=[[(1, 9, 11)] * 5], additional_t_cond=torch.tensor([0]),
    ).sample  # fmt: skip


def case(kind, run, *grids, others=(), **changes):
    return Case(
        make=lambda: image_pipelines.qwen(kind, **changes),
        run=run,
        layout=TokenLayout((Text(9), *grids)),
        layers=3,
        axes=(1,),
        others={name: partial(run, **{name: 7}) for name in others},
    )


CASES = {
    "text-to-image": case("QwenImagePipeline", run, IMAGE),
    "edit": case("QwenImageEditPipeline", edit, IMAGE, REFERENCES[0], others=["seed"]),
    "edit-plus-two-references": case(
        "QwenImageEditPlusPipeline",
        edit_plus,
        IMAGE,
        *REFERENCES,
        others=["first", "second"],
        zero_cond_t=True,
    ),
    "layers": Case(
        make=lambda: image_pipelines.qwen_transformer(
            use_layer3d_rope=True, use_additional_t_cond=True
        ),
        run=layered,
        layout=TokenLayout((Text(9), *[LatentGrid(1, 9, 11)] * 5)),
        layers=3,
        branches=("cond",),
        axes=(1,),
    ),
}


class TestContract(ConditionedContract):
    cases = CASES


def test_branches_may_have_texts_of_different_lengths():
    pipeline = image_pipelines.qwen()
    with install(pipeline, SparseConfig(**SMALL)) as handle:
        run(pipeline, negative_prompt_embeds=image_pipelines.text(40))
        pairs = {(row.branch, row.pairs) for row in handle.report().rows}
    blocks = {"cond": -(-(9 + 285) // 16), "uncond": -(-(40 + 285) // 16)}
    assert pairs == {(branch, 2 * n * n) for branch, n in blocks.items()}


@pytest.mark.parametrize("sparsity", [1e-6, 0.8])
def test_prompts_of_a_batch_may_differ_in_length(sparsity):
    """What a prompt gives does not depend on the padding that a longer one brings."""
    pipeline = image_pipelines.qwen()
    texts, mask = image_pipelines.text(40, prompts=2), torch.ones(2, 40)
    mask[1, 7:] = 0
    noise = torch.randn(2, 285, 64)
    settings = dict(prompt_embeds_mask=mask, true_cfg_scale=1.0, negative_prompt_embeds=None)
    with install(pipeline, SparseConfig(**{**SMALL, "sparsity": sparsity})) as handle:
        both = run(pipeline, prompt_embeds=texts, latents=noise, **settings)
        texts[1, 7:] = 100.0
        again = run(pipeline, prompt_embeds=texts, latents=noise, **settings)
        assert not handle.report().dense_reasons()
    assert torch.equal(again, both)
    if sparsity < 0.1:
        dense = run(pipeline, prompt_embeds=texts, latents=noise, **settings)
        torch.testing.assert_close(both, dense, atol=1e-5, rtol=0)


def test_a_mask_with_holes_runs_dense_and_is_counted():
    pipeline = image_pipelines.qwen()
    mask = torch.ones(1, 9)
    mask[0, 3] = 0
    dense = run(pipeline, prompt_embeds_mask=mask)
    with install(pipeline, SparseConfig(**{**SMALL, "strict": False})) as handle:
        ours = run(pipeline, prompt_embeds_mask=mask)
        reasons = handle.report().dense_reasons()
    # two steps of three layers; the other branch has no mask
    assert reasons == {"the mask hides text before text that it shows": 6}
    assert not torch.equal(ours, dense)


def test_one_shape_alone_is_one_image():
    assert QWEN_IMAGE.grids(None, {"img_shapes": [(1, 5, 7)]}) == (LatentGrid(1, 5, 7),)
