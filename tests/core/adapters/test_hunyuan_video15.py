from functools import partial

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from rainfusion_core.layout import LatentGrid, Text, TokenLayout
from tests.core.adapters.contract import Case, ConditionedContract, built, installed, rendered

GRID, MLLM, BYT5, IMAGE = LatentGrid(5, 3, 5), 20, 9, 6
TEXT = MLLM + BYT5 + IMAGE


def hunyuan_video15():
    """A HunyuanVideo15Pipeline that is given its text embeddings and returns latents."""
    from diffusers import (
        AutoencoderKLHunyuanVideo15,
        ClassifierFreeGuidance,
        FlowMatchEulerDiscreteScheduler,
        HunyuanVideo15Pipeline,
        HunyuanVideo15Transformer3DModel,
    )

    transformer = HunyuanVideo15Transformer3DModel(
        in_channels=9, out_channels=4, num_attention_heads=2, attention_head_dim=16, num_layers=2,
        num_refiner_layers=1, mlp_ratio=2.0, patch_size=1, patch_size_t=1, text_embed_dim=16,
        text_embed_2_dim=8, image_embed_dim=8, rope_axes_dim=(4, 6, 6), target_size=16,
    ).eval()  # fmt: skip
    vae = AutoencoderKLHunyuanVideo15(
        latent_channels=4, block_out_channels=(32, 32, 32, 32, 32), layers_per_block=1
    )
    pipeline = HunyuanVideo15Pipeline(
        None, None, transformer, vae.eval(), FlowMatchEulerDiscreteScheduler(shift=5.0),
        None, None, ClassifierFreeGuidance(guidance_scale=6.0),
    )  # fmt: skip
    pipeline.vision_num_semantic_tokens = IMAGE
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def run(pipeline):
    def text(mllm, byt5):
        generator = torch.Generator().manual_seed(mllm)
        return (
            torch.randn(1, MLLM, 16, generator=generator), torch.arange(MLLM)[None] < mllm,
            torch.randn(1, BYT5, 8, generator=generator), torch.arange(BYT5)[None] < byt5,
        )  # fmt: skip

    names = ("prompt_embeds", "prompt_embeds_mask", "prompt_embeds_2", "prompt_embeds_mask_2")
    negative = (f"negative_{name}" for name in names)
    return pipeline(
        **dict(zip(names, text(13, 4), strict=True)),
        **dict(zip(negative, text(2, 0), strict=True)),
        height=48, width=80, num_frames=17, num_inference_steps=2,
        generator=torch.Generator().manual_seed(0), output_type="latent",
    ).frames  # fmt: skip


def run_with_image(transformer, picture=1.0):
    """Both branches of one step; with a picture its tokens come first, and are no padding.

    Args:
        picture: factor on the picture's embedding; beyond its sign it is normalised away.
    """
    generator = torch.Generator().manual_seed(0)
    latents = torch.randn(1, 9, 5, 3, 5, generator=generator)
    picture = picture * torch.randn(1, IMAGE, 8, generator=generator)
    outputs = []
    for branch, valid in (("pred_cond", 13), ("pred_uncond", 2)):
        with transformer.cache_context(branch):
            outputs += transformer(
                latents, torch.tensor([500.0]),
                torch.randn(1, MLLM, 16, generator=generator), torch.arange(MLLM)[None] < valid,
                encoder_hidden_states_2=torch.zeros(1, BYT5, 8),
                encoder_attention_mask_2=torch.zeros(1, BYT5, dtype=torch.bool),
                image_embeds=picture, return_dict=False,
            )  # fmt: skip
    return torch.stack(outputs)


CASES = {
    "image-to-video": Case(
        make=lambda: hunyuan_video15().transformer,
        run=run_with_image,
        layout=TokenLayout((GRID, Text(TEXT))),
        layers=2,
        branches=("pred_cond", "pred_uncond"),
        padded={"pred_cond": (7 + 9,), "pred_uncond": (18 + 9,)},
        others={"picture": partial(run_with_image, picture=-1.0)},
    ),
    "text-to-video": Case(
        make=hunyuan_video15,
        run=run,
        layout=TokenLayout((GRID, Text(TEXT))),
        layers=2,
        branches=("pred_cond", "pred_uncond"),
        # no image is given, so all of its tokens are padding
        padded={"pred_cond": (7 + 5 + 6,), "pred_uncond": (18 + 9 + 6,)},
    ),
}


class TestContract(ConditionedContract):
    cases = CASES


class SquareMasks(TorchDispatchMode):
    """Counts bool tensors with a row for every query, as `repeat` makes them."""

    seen = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        if function is torch.ops.aten.repeat.default and out.dtype == torch.bool:
            self.seen += out.numel() >= (GRID.tokens + TEXT) ** 2
        return out


def test_no_mask_of_every_pair_of_tokens_is_built():
    case = CASES["text-to-video"]
    built(case)
    with SquareMasks() as theirs:
        rendered(case)
    with installed(case, sparsity=0.8), SquareMasks() as ours:
        rendered(case)
    assert (theirs.seen > 0, ours.seen) == (True, 0)
