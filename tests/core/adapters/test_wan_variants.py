"""Image to video, first and last frame, control by VACE, and characters by Wan-Animate."""

from functools import partial

import torch
from PIL import Image

from rainfusion_core.layout import LatentGrid, TokenLayout
from tests import pipelines
from tests.core.adapters.contract import Case, ConditionedContract

VIDEO = TokenLayout((LatentGrid(5, 3, 5),))  # 17 frames of 48x80
RED, BLUE, GREEN = (Image.new("RGB", (80, 48), colour) for colour in ("red", "blue", "green"))
WHITE, BLACK = (Image.new("L", (80, 48), value) for value in (255, 0))


def run(pipeline, **changes):
    settings = dict(height=48, width=80, output_type="latent")
    return pipelines.run(pipeline, **settings | changes)


def image_to_video(*, two_stages=False, expand_timesteps=False, last_image=None, **changes):
    """A WanImageToVideoPipeline; with `image_dim` the image enters through `attn2` too."""
    from diffusers import WanImageToVideoPipeline

    def transformer():
        # 5B writes the image into the first frame, the others add channels for it
        return pipelines.wan_transformer(in_channels=16 if expand_timesteps else 36, **changes)

    def make():
        pipeline = WanImageToVideoPipeline(
            *pipelines.wan_parts(),
            *pipelines.image_parts(),
            transformer=transformer(),
            transformer_2=transformer() if two_stages else None,
            boundary_ratio=0.9 if two_stages else None,
            expand_timesteps=expand_timesteps,
        )
        pipeline.set_progress_bar_config(disable=True)
        return pipeline

    given = dict(image=RED, last_image=last_image, num_inference_steps=3)
    others = {"image": GREEN} | ({"last_image": GREEN} if last_image else {})
    return Case(
        make=make,
        run=partial(run, **given),
        layout=VIDEO,
        layers=6 if two_stages else 3,
        others={name: partial(run, **given | {name: other}) for name, other in others.items()},
    )


def vace_case(frames, given, others):
    return Case(
        make=pipelines.vace,
        run=partial(run, **given),
        layout=TokenLayout((LatentGrid(frames, 3, 5),)),
        layers=3 + 2,
        others={name: partial(run, **given | {name: other}) for name, other in others.items()},
    )


def animate():
    from diffusers import WanAnimateTransformer3DModel

    return WanAnimateTransformer3DModel(
        num_attention_heads=2, attention_head_dim=16, in_channels=12, latent_channels=4,
        out_channels=4, text_dim=32, freq_dim=32, ffn_dim=64, num_layers=2, image_dim=8,
        rope_max_seq_len=64, motion_encoder_channel_sizes={"4": 8, "8": 8, "16": 8},
        motion_encoder_size=16, motion_style_dim=8, motion_dim=4, motion_encoder_dim=8,
        face_encoder_hidden_dim=16, face_encoder_num_heads=2, inject_face_latents_blocks=2,
    ).eval()  # fmt: skip


def run_animate(transformer, pose=1.0, face=1.0):
    """One step of both branches; the first of six latent frames is the character's picture.

    Args:
        pose, face: factors on their videos.
    """
    noise = torch.Generator().manual_seed(0)
    latents = torch.randn(1, 12, 6, 6, 10, generator=noise)
    pose = pose * torch.randn(1, 4, 5, 6, 10, generator=noise)
    face = face * torch.randn(1, 3, 17, 16, 16, generator=noise)
    outputs = []
    for branch in ("cond", "uncond"):
        text = torch.randn(1, 4, 32, generator=noise)
        with transformer.cache_context(branch):
            outputs += transformer(
                hidden_states=latents, timestep=torch.tensor([500]), encoder_hidden_states=text,
                encoder_hidden_states_image=torch.ones(1, 5, 8), pose_hidden_states=pose,
                face_pixel_values=face, return_dict=False,
            )  # fmt: skip
    return torch.stack(outputs)


CASES = {
    "2.1-image-to-video": image_to_video(image_dim=8, added_kv_proj_dim=32),
    "2.1-first-and-last-frame": image_to_video(
        last_image=BLUE, image_dim=8, added_kv_proj_dim=32, pos_embed_seq_len=10
    ),
    "2.2-image-to-video": image_to_video(two_stages=True),
    "2.2-5b-image-to-video": image_to_video(expand_timesteps=True),
    "vace": vace_case(
        5,
        dict(video=[RED] * 17, mask=[WHITE] * 17),
        # the first frame another one, and all frames kept
        dict(video=[GREEN] + [RED] * 16, mask=[BLACK] * 17),
    ),
    "vace-reference-image": vace_case(
        6, dict(reference_images=[BLUE]), dict(reference_images=[GREEN])
    ),
    "animate": Case(
        make=animate,
        run=run_animate,
        layout=TokenLayout((LatentGrid(6, 3, 5),)),
        layers=2,
        others={name: partial(run_animate, **{name: 2.0}) for name in ("pose", "face")},
    ),
}


class TestContract(ConditionedContract):
    cases = CASES
