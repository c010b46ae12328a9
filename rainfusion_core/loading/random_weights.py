"""Full-size transformers with random weights, built straight on their device: for speed, never for quality."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from rainfusion_core.adapters import ADAPTERS, MadeUp
from rainfusion_core.errors import ModelUnavailable

STANDARD_DEVIATION = 0.02


def transformer_class(name: str) -> Any:
    """The transformer class of diffusers called `name`."""
    import diffusers

    found = getattr(diffusers, name, None)
    if found is None:
        raise ModelUnavailable(
            f"diffusers {diffusers.__version__} has no class {name}",
            hint="pip install --upgrade diffusers",
        )
    return found


def random_model(
    class_name: str,
    config: Mapping[str, Any],
    *,
    device: torch.device,
    dtype: torch.dtype,
    seed: int = 0,
) -> nn.Module:
    """A model of diffusers with random weights, see `draw_weights`."""
    return draw_weights(
        lambda: transformer_class(class_name)(**config), device=device, dtype=dtype, seed=seed
    )


@torch.no_grad()
def draw_weights(
    make: Callable[[], Any], *, device: torch.device, dtype: torch.dtype, seed: int = 0
) -> nn.Module:
    """What `make` builds, its weights drawn on the device: N(0, 0.02), 1 for gains, 0 for biases.

    Parameters that the class keeps in float32 are float32 here too. Buffers, such as tables of
    rotary embedding, hold what the class computes.
    """
    from accelerate import init_empty_weights

    with init_empty_weights(include_buffers=False):
        model = make()
    islands = set(model._keep_in_fp32_modules or ())
    generator = torch.Generator(device=device).manual_seed(seed)
    owners = dict(model.named_modules())
    drawn: dict[nn.Parameter, nn.Parameter] = {}  # weights that two modules share stay shared
    for name, parameter in list(model.named_parameters(remove_duplicate=False)):
        owner, _, leaf = name.rpartition(".")
        if parameter not in drawn:
            kept = torch.float32 if islands & set(name.split(".")) else dtype
            values = torch.empty(parameter.shape, device=device, dtype=kept)
            if parameter.ndim == 1:
                values.fill_(float(leaf == "weight"))
            else:
                values.normal_(0, STANDARD_DEVIATION, generator=generator)
            drawn[parameter] = nn.Parameter(values, requires_grad=False)
        setattr(owners[owner], leaf, drawn[parameter])
    for name, buffer in list(model.named_buffers()):
        owner, _, leaf = name.rpartition(".")
        owners[owner]._buffers[leaf] = buffer.to(device)
    return model.eval()


def parameter_count(class_name: str, config: Mapping[str, Any]) -> int:
    """Parameters of the model that `config` describes. Builds it on the meta device, without memory."""
    with torch.device("meta"):
        model = transformer_class(class_name)(**config)
    return sum(parameter.numel() for parameter in model.parameters())


def random_inputs(
    transformer: Any, latents: tuple[int, int, int], text_tokens: int, *, seed: int = 0
) -> dict[str, Any]:
    """Arguments of one forward pass, of one guidance branch.

    Args:
        latents: frames, height and width before patchify.

    Raises:
        UnknownName: no adapter knows the arguments of this class.
    """
    adapter = ADAPTERS[type(transformer).__name__]
    device, dtype = transformer.device, transformer.dtype
    generator = torch.Generator(device=device).manual_seed(seed)

    def noise(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, device=device).to(dtype)

    return adapter.inputs(MadeUp(transformer.config, latents, text_tokens, noise))
