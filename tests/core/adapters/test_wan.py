from types import SimpleNamespace

import torch

from rainfusion_core.adapters.wan import WAN
from rainfusion_core.layout import LatentGrid, TokenLayout

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
