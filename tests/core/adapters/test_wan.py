from types import SimpleNamespace

import torch

from rainfusion_core.adapters.wan import WAN
from rainfusion_core.layout import LatentGrid, TokenLayout
from tests import pipelines
from tests.core.adapters.contract import AdapterContract, Case


def wan(layers=3, **changes):
    """17 frames of 48x80: 5 latent frames, and 3 x 5 tokens in each."""
    return Case(
        make=lambda: pipelines.wan(**changes),
        run=lambda pipeline: pipelines.run(pipeline, height=48, width=80, output_type="latent"),
        layout=TokenLayout((LatentGrid(5, 3, 5),)),
        layers=layers,
    )


CASES = {
    "2.1-text-to-video": wan(),
    "2.2-two-transformers": wan(layers=6, two_stages=True),
    "2.2-5b-timestep-a-token": wan(expand_timesteps=True),
}


class TestContract(AdapterContract):
    cases = CASES


CONFIG = SimpleNamespace(patch_size=(1, 2, 2))


def test_grid_divides_latents_by_the_patch():
    latents = torch.empty(1, 16, 21, 60, 104, device="meta")
    assert WAN.grids(CONFIG, {"hidden_states": latents}) == (LatentGrid(21, 30, 52),)


def test_only_self_attention_matches():
    assert WAN.self_attention.fullmatch("blocks.7.attn1")
    assert not WAN.self_attention.fullmatch("blocks.7.attn2")


def test_tokens_beside_the_grid_are_not_explained():
    grids = (LatentGrid(2, 3, 4),)
    assert WAN.layout(grids, 24) == TokenLayout(grids)
    assert WAN.layout(grids, 30) is None and WAN.layout(grids, 20) is None
