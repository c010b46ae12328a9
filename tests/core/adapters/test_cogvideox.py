from types import SimpleNamespace

import torch

from rainfusion_core.adapters.cogvideox import COGVIDEOX
from rainfusion_core.layout import LatentGrid, Text, TokenLayout
from tests import pipelines
from tests.core.adapters.contract import AdapterContract, Case


def cogvideox(*, num_frames=17, **changes):
    return Case(
        make=lambda: pipelines.cogvideox(**changes),
        run=lambda pipeline: pipelines.run(
            pipeline, height=48, width=80, num_frames=num_frames, output_type="latent"
        ),
        layout=TokenLayout((Text(16), LatentGrid(5, 3, 5))),
        layers=2,
        branches=("cond_uncond",),
        axes=(1, 3, 4),
    )


CASES = {
    "2b-positions": cogvideox(use_rotary_positional_embeddings=False),
    "5b-rotary": cogvideox(),
    "1.5-two-frames-a-token": cogvideox(patch_size_t=2, num_frames=37),
}


class TestContract(AdapterContract):
    cases = CASES


def test_two_frames_may_make_one_token():
    latents = torch.empty(1, 6, 16, 10, 12, device="meta")
    for patch_size_t, frames in ((None, 6), (1, 6), (2, 3)):
        config = SimpleNamespace(patch_size=2, patch_size_t=patch_size_t)
        assert COGVIDEOX.grids(config, {"hidden_states": latents}) == (LatentGrid(frames, 5, 6),)
