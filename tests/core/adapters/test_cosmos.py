import torch

from rainfusion_core.layout import LatentGrid, TokenLayout
from tests.core.adapters.contract import AdapterContract, Case


def cosmos(**changes):
    """The transformer alone: the pipelines refuse to run without NVIDIA's safety checker."""
    from diffusers import CosmosTransformer3DModel

    settings = dict(
        in_channels=5, out_channels=4, num_attention_heads=2, attention_head_dim=16, num_layers=2,
        mlp_ratio=2, text_embed_dim=16, adaln_lora_dim=4, max_size=(8, 16, 16),
        rope_scale=(1.0, 3.0, 3.0), extra_pos_embed_type=None,
        concat_padding_mask=False,  # one more channel, which torchvision would resize
    )  # fmt: skip
    return CosmosTransformer3DModel(**settings | changes).eval()


def run(transformer):
    """Two steps of both branches, with a timestep a frame and a first frame that is given."""
    generator = torch.Generator().manual_seed(0)
    latents = torch.randn(1, 4, 5, 6, 10, generator=generator)
    given = torch.zeros(1, 1, 5, 6, 10)
    given[:, :, :1] = 1
    texts = torch.randn(2, 1, 9, 16, generator=generator)
    outputs = []
    for sigma in (0.9, 0.5):
        timestep = torch.full((1, 1, 5, 1, 1), sigma)
        timestep[:, :, :1] = 0.0001
        for text in texts:
            context = text
            if transformer.config.img_context_dim_in:
                context = (text, torch.randn(1, 4, 8, generator=generator))
            outputs += transformer(
                latents, timestep, context, fps=16, condition_mask=given, return_dict=False
            )
    return torch.stack(outputs)


def cosmos_case(**changes):
    return Case(
        make=lambda: cosmos(**changes),
        run=run,
        layout=TokenLayout((LatentGrid(5, 3, 5),)),
        layers=2,
    )


CASES = {
    "2": cosmos_case(),
    "1-learned-positions": cosmos_case(extra_pos_embed_type="learnable"),
    "2.5-image-context": cosmos_case(
        use_crossattn_projection=True, crossattn_proj_in_channels=16,
        encoder_hidden_states_channels=16, img_context_dim_in=8, img_context_num_tokens=4,
        img_context_dim_out=32,
    ),
}  # fmt: skip


class TestContract(AdapterContract):
    cases = CASES
